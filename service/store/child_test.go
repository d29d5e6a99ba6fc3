package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test binary runs itself as a child process where a process has to die.
const (
	childEnv    = "RTCD_STORE_CHILD"
	childDirEnv = "RTCD_STORE_CHILD_DIR"
)

// Exit statuses of a child.
const (
	childOpened  = 0
	childRefused = 7
	childFailed  = 8
)

// runChild does what the mode says with the store in childDirEnv.
func runChild(mode string) int {
	s, err := Open(Config{Dir: os.Getenv(childDirEnv)}, nil)
	if err != nil {
		fmt.Println(err)
		if errors.Is(err, ErrDamaged) {
			return childRefused
		}
		return childFailed
	}
	switch mode {
	case "register":
		return registerForEver(s)
	case "list":
		for id, client := range s.clients {
			fmt.Printf("%s %s\n", id, client.Hash)
		}
		// Close flushes and compacts: what was read from a damaged folder is written anew.
		if err := s.Close(); err != nil {
			fmt.Println(err)
			return childFailed
		}
		return childOpened
	}
	return childFailed
}

// registerForEver registers with 8 goroutines and writes each id that was acknowledged, one write
// call per line.
func registerForEver(s *Store) int {
	fmt.Println("ready")
	run := os.Getpid()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d-%d", s.Count(), run, worker, i)
				if err := s.Insert(context.Background(), Client{ID: id, Hash: hashOf(id), Created: time.Now()}); err != nil {
					fmt.Println("error", err)
					return
				}
				os.Stdout.WriteString("ack " + id + "\n")
			}
		})
	}
	wg.Wait()
	return childFailed
}

func hashOf(id string) []byte { return []byte("hash of " + id) }

func childCommand(t *testing.T, mode, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+mode, childDirEnv+"="+dir)
	return cmd
}

func rounds(t *testing.T, env string, byDefault int) int {
	t.Helper()
	value := os.Getenv(env)
	if value == "" {
		return byDefault
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number of rounds", env, value)
	}
	return n
}

// A registration that was acknowledged is there after kill -9 at any instant (fault F1).
func TestKilledProcessLosesNothing(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	acked := make(map[string]bool)
	n := rounds(t, "RTCD_KILL_ROUNDS", 25)
	var slowest time.Duration
	for round := range n {
		if len(acked) > DefaultMaxClients/2 { // before the cap ends the child
			dir, acked = t.TempDir(), make(map[string]bool)
		}
		killRound(t, dir, time.Duration(random.Int64N(int64(300*time.Millisecond))), acked)
		start := time.Now()
		s, err := Open(Config{Dir: dir}, nil)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		slowest = max(slowest, time.Since(start))
		for id := range acked {
			if got, err := s.Get(id); err != nil || string(got.Hash) != string(hashOf(id)) {
				t.Errorf("round %d: acknowledged %q: %v, %v", round, id, got, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was acknowledged, so nothing was shown")
	}
	t.Logf("%d rounds, %d acknowledged registrations in the last folder, slowest opening %v", n, len(acked), slowest)
}

func killRound(t *testing.T, dir string, after time.Duration, acked map[string]bool) {
	t.Helper()
	cmd := childCommand(t, "register", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var timer *time.Timer
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		switch word, id, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); word {
		case "ready":
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		case "ack":
			acked[id] = true
		default:
			t.Errorf("child says %q", line)
		}
	}
	if timer == nil {
		t.Fatal("the child did not open the store")
	}
	timer.Stop()
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // "signal: killed"
}

// A folder with a cut or flipped byte anywhere opens with true hashes or is refused with the
// file's name; the process never dies of it (fault F3).
func TestDamagedFolder(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	closed, killed := makeFolders(t)
	n := rounds(t, "RTCD_DAMAGE_ROUNDS", 30)
	refused, opened := 0, 0
	for i := range n {
		from := []string{closed, killed}[i%2]
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		what := damage(t, random, filepath.Join(dir, folderName, dbName))
		out, err := childCommand(t, "list", dir).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			opened++
			checkListed(t, what, string(out))
		case errors.As(err, &exit) && exit.ExitCode() == childRefused && strings.Contains(string(out), what.file):
			refused++
		default:
			t.Errorf("%s: child ended with %v and said %s", what, err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d damaged copies: %d refused, %d opened", n, refused, opened)
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// checkListed checks every line that a child listed: a hash is the one registered.
func checkListed(t *testing.T, what damaging, out string) {
	t.Helper()
	found := 0
	for line := range strings.Lines(out) {
		id, hash, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if hash != string(hashOf(id)) {
			t.Errorf("%s: client %q has hash %q", what, id, hash)
		}
		found++
	}
	// The very last commit can look like one that was cut off, nothing before it can.
	if found < damagedClients-1 {
		t.Errorf("%s: opened with %d of %d clients", what, found, damagedClients)
	}
}

const damagedClients = 40

// makeFolders returns a folder that was closed and one as a kill leaves it, of the same clients.
func makeFolders(t *testing.T) (closed, killed string) {
	t.Helper()
	closed, killed = t.TempDir(), t.TempDir()
	for i := range 4 {
		s := mustOpen(t, Config{Dir: closed})
		for j := range damagedClients / 4 {
			id := fmt.Sprint("client-", i, "-", j)
			if err := s.Insert(t.Context(), Client{ID: id, Hash: hashOf(id), Created: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			if err := os.CopyFS(killed, os.DirFS(closed)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return closed, killed
}

type damaging struct{ file, kind string }

func (d damaging) String() string { return d.file + " " + d.kind }

// damage cuts a random file of dir, or flips a bit in it; where the file has contents, there.
func damage(t *testing.T, random *rand.Rand, dir string) damaging {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "LOCK" { // a process id
			names = append(names, e.Name())
		}
	}
	d := damaging{file: names[random.IntN(len(names))]}
	path := filepath.Join(dir, d.file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(strings.TrimRight(string(b), "\x00"))
	// A write-ahead file of no length is one that Badger was about to remove; see checkWriteAheadFiles.
	at := 1 + random.IntN(max(used-1, 1))
	switch {
	case random.IntN(3) == 0:
		d.kind = fmt.Sprintf("cut from %d to %d bytes", len(b), at)
		err = os.Truncate(path, int64(at))
	default:
		d.kind = fmt.Sprintf("flipped at %d of %d", at, used)
		b[min(at, len(b)-1)] ^= 1 << random.IntN(8)
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}
