package feed

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const childEnv = "RTCD_FEED_TEST_DIR"

// TestChild is not a test: it is the server that TestKill kills. It writes what it delivers to its output.
func TestChild(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("only for TestKill")
	}
	f, err := Open(Config{Dir: dir, KeepBytes: 4 << 20}, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := 0; ; i++ {
			talk(f, "a", fmt.Sprint("call", i%5), 2, i%3 > 0)
			f.Add("a", Event{Type: CallEnded, CallID: fmt.Sprint("call", (i+2)%5)})
			if i%4 == 0 {
				time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond) // so that batches differ
			}
		}
	}()
	after := os.Getenv(childEnv + "_AFTER")
	for {
		changed := f.Changed("a")
		p, err := f.Read("a", Query{After: after, Limit: 50})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Items {
			fmt.Printf("event %s %s\n", i.ID, i.Data)
		}
		if after = p.Next; len(p.Items) == 0 {
			<-changed
		}
	}
}

// TestKill kills a server over and over, at any moment, while one consumer follows. The consumer sees no gap,
// nothing twice, nothing out of order, and what it saw stands in the log of the next server as it was.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "events")
	after, total, calls := "", 0, make(map[string]uint64)
	seen := make(map[string]string)
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_AFTER="+after)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(out)
		kill := 1 + rand.IntN(300)
		for n := 0; ; n++ {
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasSuffix(line, "}\n") {
				break
			}
			parts := strings.SplitN(strings.TrimSpace(line), " ", 3)
			if len(parts) != 3 || parts[0] != "event" {
				t.Fatalf("the server says %s", line)
			}
			id := parts[1]
			if id <= after || strings.Contains(parts[2], `"gap"`) {
				t.Fatalf("%s comes after %s", line, after)
			}
			after, seen[id] = id, parts[2]
			total++
			if n == kill {
				_ = cmd.Process.Signal(syscall.SIGKILL)
			}
		}
		_ = cmd.Wait()
	}
	f := open(t, Config{Dir: dir, KeepBytes: 4 << 20}, nil)
	flush(t, f)
	next, kept := "", 0
	for {
		p, err := f.Read("a", Query{After: next, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Items {
			if text, ok := seen[i.ID]; ok {
				kept++
				if text != string(i.Data) {
					t.Errorf("%s was %s and is %s", i.ID, text, i.Data)
				}
			} else if i.ID <= after {
				t.Errorf("%s stands before what was seen, and was not", i.ID)
			}
		}
		if next = p.Next; !p.More {
			break
		}
	}
	events, _ := all(t, f, "a", "")
	for _, e := range events { // files at the beginning may be gone
		if last, ok := calls[e.Instance]; ok && e.CallSeq != last+1 {
			t.Fatalf("%s after #%d", short(e), last)
		}
		calls[e.Instance] = e.CallSeq
	}
	t.Logf("%d kills, %d events delivered, %d of them kept", rounds, total, kept)
}
