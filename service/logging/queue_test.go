package logging

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// numbers returns the text of the messages "line 0", "line 1" ... of plain lines, and how many lines
// they say were lost, which must be where they are missing.
func numbers(t *testing.T, text string) (lines int, lost uint64) {
	t.Helper()
	next := 0
	for l := range strings.Lines(text) {
		fields := strings.Fields(l[strings.Index(l, "] ")+2:])
		switch {
		case fields[0] == "line":
			if n, err := strconv.Atoi(fields[1]); err != nil || n != next {
				t.Fatalf("line %d expected: %q", next, l)
			}
			next++
			lines++
		case strings.HasPrefix(l, "warn ") && strings.HasPrefix(l[strings.Index(l, "] ")+2:], "log lines lost "):
			n, err := strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "n="), 10, 64)
			if err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			next += int(n)
			lost += n
		default:
			t.Fatalf("an odd line: %q", l)
		}
	}
	return lines, lost
}

// A gate is a target that takes nothing while it is shut.
type gate struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.Write(b)
}

// Lines beyond the bound are dropped, counted, and spoken of where they are missing.
func TestQueueDropsAndSaysSo(t *testing.T) {
	var g gate
	q := newQueue(&g, plainFormat(false), 1000)
	line := func(i int) []byte { return fmt.Appendf(nil, "info  [x] line %d\n", i) }
	i := 0
	for range 3 {
		g.mu.Lock()
		for end := i + 500; i < end; i++ {
			if n, err := q.Write(line(i)); n != len(line(i)) || err != nil {
				t.Fatal(n, err)
			}
		}
		g.mu.Unlock()
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	lines, lost := numbers(t, g.out.String())
	if lost == 0 || lost != q.lost.Load() || lines+int(lost) != i {
		t.Errorf("%d lines, %d lost, %d counted, of %d", lines, lost, q.lost.Load(), i)
	}
	if _, err := q.Write(line(0)); err == nil {
		t.Error("taken after the end")
	}
}

// A long line passes even if it is longer than the bound, and is written in one piece.
func TestQueueTakesLongLines(t *testing.T) {
	var out bytes.Buffer
	q := newQueue(&out, plainFormat(false), 100)
	long := strings.Repeat("x", 3*maxChunkBytes) + "\n"
	if _, err := io.WriteString(q, long); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil || out.String() != long {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
}

// A short writer takes so many bytes more, and then fails.
type short struct {
	out  bytes.Buffer
	left int
}

func (s *short) Write(b []byte) (int, error) {
	n := min(len(b), s.left)
	s.left -= n
	s.out.Write(b[:n])
	if n < len(b) {
		return n, errors.New("full")
	}
	return n, nil
}

// A volume that is full and has room later holds whole lines but for one, and a line that says what is
// missing.
func TestQueueGoesOnAfterErrors(t *testing.T) {
	s := &short{left: 25}
	q := &queue{out: s, notice: func(n uint64) []byte { return fmt.Appendf(nil, "lost %d\n", n) }}
	q.write([]byte("a line of 21 letters\nwhat comes behind\nand more\n"))
	q.write([]byte("again\n"))
	s.left = 1000
	q.write([]byte("good\n"))
	if got, want := s.out.String(), "a line of 21 letters\nwhat\nlost 3\ngood\n"; got != want || q.lost.Load() != 3 {
		t.Errorf("got %q, %d lost", got, q.lost.Load())
	}
}

// Nobody who writes a line waits for a pipe that nobody reads: neither does Close for long. When
// somebody reads again, all is there in order, and a line for what is not.
func TestBlockedPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log, out, err := New(Config{EnableConsole: true, ConsoleLevel: "info", Console: w})
	if err != nil {
		t.Fatal(err)
	}
	const n = 60_000 // 6 MB
	began := time.Now()
	var worst time.Duration
	for i := range n {
		before := time.Now()
		log.Info(fmt.Sprintf("line %d", i))
		worst = max(worst, time.Since(before))
	}
	t.Logf("%d lines in %v, the slowest %v", n, time.Since(began), worst)
	if time.Since(began) > 20*time.Second {
		t.Error("that is too slow")
	}
	lostThen := out.Targets()[0].Lost()
	if lostThen == 0 {
		t.Error("nothing was lost: the pipe does not block")
	}
	began = time.Now()
	if err := out.Close(); !errors.Is(err, errStuck) || time.Since(began) > flushTime+2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	var text []byte
	read := make(chan error, 1)
	go func() {
		var err error
		text, err = io.ReadAll(r)
		read <- err
	}()
	<-out.console.done // it goes on with what waits
	_ = w.Close()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	lines, lost := numbers(t, string(text))
	if lines+int(lost) != n || lost != lostThen {
		t.Errorf("%d lines and %d lost of %d", lines, lost, n)
	}
	if lines < 20_000 {
		t.Errorf("only %d lines waited", lines)
	}
}

// awaitTrue waits for what a goroutine does without an event.
func awaitTrue(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
