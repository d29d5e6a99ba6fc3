package logging

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxQueuedBytes bounds the lines that wait for a target: some 20,000.
	maxQueuedBytes = 4 << 20
	// maxChunkBytes is how much is written at once, unless one line is longer.
	maxChunkBytes = 64 << 10
	// keptBytes is the most that a queue keeps for later when nothing waits.
	keptBytes = 256 << 10
	// flushTime bounds how long Close waits for a target to take the lines that wait for it.
	flushTime = time.Second
)

// errStuck is the error of a target that takes nothing.
var errStuck = errors.New("log target does not take lines; those that waited are lost")

// A queue takes lines for a target that may be slow or hang (a pipe that nobody reads, a disk that
// does not answer) and writes them in order by a goroutine of its own, so that whoever writes a line
// never waits. When it is full it drops the newest lines, all until there is room for many, counts
// them, and says so in a line of its own once the target takes lines again.
type queue struct {
	out    io.Writer
	notice func(lost uint64) []byte // the line that says so
	max    int
	lost   atomic.Uint64 // lines, ever

	mu      sync.Mutex // guards the fields below
	pending []byte     // whole lines
	dropped uint64     // lines after those in pending
	closed  bool

	wake chan struct{} // holds one
	done chan struct{} // closed when all was written after Close

	// Of the goroutine.
	unsaid uint64 // lines that were lost and that no line speaks of
	torn   bool   // the last write ended inside a line
}

// newQueue returns a queue, with its goroutine running until Close.
func newQueue(out io.Writer, f format, max int) *queue {
	q := &queue{
		out: out, max: max, wake: make(chan struct{}, 1), done: make(chan struct{}),
		notice: func(lost uint64) []byte {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines lost", 0)
			return f.tail(appendAttr(f.head(nil, r), f, "", slog.Uint64("n", lost)))
		},
	}
	go q.run()
	return q
}

// Write implements io.Writer for one whole line. It never waits for the target; it fails only
// after Close.
func (q *queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	if q.dropped > 0 || len(q.pending) > 0 && len(q.pending)+len(line) > q.max {
		q.dropped++
		q.lost.Add(1)
	} else {
		q.pending = append(q.pending, line...)
	}
	q.mu.Unlock()
	q.awake()
	return len(line), nil
}

func (q *queue) awake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run writes what comes until the queue is closed and empty.
func (q *queue) run() {
	defer close(q.done)
	var batch []byte
	for {
		if cap(batch) > keptBytes {
			batch = nil
		}
		q.mu.Lock()
		batch, q.pending = q.pending, batch[:0]
		dropped, closed := q.dropped, q.closed
		q.dropped = 0
		q.mu.Unlock()
		if len(batch) == 0 && dropped == 0 {
			if closed {
				return
			}
			<-q.wake
			continue
		}
		q.write(batch)
		q.unsaid += dropped
		q.say()
	}
}

// write writes lines, in parts that end with a line. What cannot be written is lost.
func (q *queue) write(lines []byte) {
	for len(lines) > 0 {
		if !q.say() {
			q.miss(lines)
			return
		}
		n := len(lines)
		if n > maxChunkBytes {
			if n = bytes.LastIndexByte(lines[:maxChunkBytes], '\n') + 1; n == 0 {
				n = bytes.IndexByte(lines, '\n') + 1
			}
		}
		written := q.put(lines[:n])
		q.miss(lines[written:n])
		lines = lines[n:]
	}
}

// miss counts lines that could not be written, the rest of one as a whole.
func (q *queue) miss(lines []byte) {
	n := uint64(bytes.Count(lines, []byte{'\n'}))
	q.unsaid += n
	q.lost.Add(n)
}

// say writes how many lines were lost, and reports whether none are left to speak of.
func (q *queue) say() bool {
	if q.unsaid == 0 {
		return true
	}
	line := q.notice(q.unsaid)
	if q.put(line) == len(line) {
		q.unsaid = 0
	}
	return q.unsaid == 0
}

// put writes lines, on a line of their own, and returns how much of them was written. Errors are the
// target's to report.
func (q *queue) put(lines []byte) int {
	if q.torn {
		if n, _ := q.out.Write([]byte{'\n'}); n == 0 {
			return 0
		}
		q.torn = false
	}
	n, _ := q.out.Write(lines)
	n = min(max(n, 0), len(lines))
	q.torn = n > 0 && lines[n-1] != '\n'
	return n
}

// Close takes no more lines and waits, flushTime at most, until the target has those there are. If it
// does not take them, the goroutine is left behind: nothing ends a write to a disk that hangs.
func (q *queue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.awake()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-q.done:
		return nil
	case <-timer.C:
		return errStuck
	}
}

// A Target is a place that lines are written to.
type Target struct {
	Name string        // "console" or "file"
	Lost func() uint64 // lines that it did not take, ever
}

// An Output is where the lines of a logger go.
type Output struct {
	console, file *queue        // nil: none
	files         *rotatingFile // of file
}

// Targets returns where lines are written to.
func (o *Output) Targets() []Target {
	var out []Target
	if o.console != nil {
		out = append(out, Target{"console", o.console.lost.Load})
	}
	if o.file != nil {
		out = append(out, Target{"file", o.file.lost.Load})
	}
	return out
}

// Close writes the lines that wait, closes the file and waits for work on it; all that for two seconds
// at most, whatever hangs. Lines written later are lost.
func (o *Output) Close() error {
	var errs []error
	if o.file != nil { // first: what goes wrong is told to the console
		err := o.file.Close()
		if err == nil {
			err = soon(o.files.Close)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("close log file: %w", err))
		}
	}
	if o.console != nil {
		if err := o.console.Close(); err != nil {
			errs = append(errs, fmt.Errorf("flush console: %w", err))
		}
	}
	return errors.Join(errs...)
}

// soon runs f, and leaves it behind if it does not end within flushTime.
func soon(f func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errStuck
	}
}
