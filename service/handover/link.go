package handover

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"
)

// Kinds of frames that are the link's own; those of its users begin at FirstKind.
const (
	kindReply = iota // to the frame of the same id
	kindFault        // likewise, an error
	kindHold         // no frame more than kindHeld, until kindResume comes
	kindHeld
	kindResume

	FirstKind = 16
)

// maxQueued bounds what waits to be sent, in bytes: a process that takes nothing is given up.
const maxQueued = 64 << 20

// patience is how long the other process may take to make room for one frame.
const patience = 30 * time.Second

// Errors of links.
var (
	// ErrGone says that the other process is gone, or that this one has ended the link.
	ErrGone = errors.New("link to the other process has ended")

	errFull = errors.New("other process takes nothing")
)

// A Frame is what one side tells or asks the other. Those with an ID wait for Reply.
type Frame struct {
	Kind uint8
	ID   uint32
	Body []byte
}

// A Fault is an error as the other process has told it.
type Fault string

// Error is what was told.
func (f Fault) Error() string { return string(f) }

// A Link is a Conn over which both sides talk at any time. What one posts, asks and answers the other
// side gets in that order. Its methods are safe for concurrent use and, but for Ask, Hold and Close,
// do not block.
type Link struct {
	conn   *Conn
	handle func(*Link, Frame)
	wake   chan struct{} // one slot
	read   chan struct{} // closed when reading has ended
	done   sync.WaitGroup

	mu      sync.Mutex
	queue   [][]byte
	queued  int
	later   [][]byte // posted while held
	held    bool
	last    bool // nothing may be posted any more
	asked   map[uint32]chan Frame
	id      uint32
	err     error // why it ended
	holding bool  // the other side is to be held: reading ends with its answer
}

// NewLink makes a link of c, which is its own from now on. handle is called for each frame that comes,
// one after the other; it must not ask.
func NewLink(c *Conn, handle func(*Link, Frame)) *Link {
	l := &Link{
		conn: c, handle: handle, wake: make(chan struct{}, 1), read: make(chan struct{}),
		asked: make(map[uint32]chan Frame),
	}
	l.done.Go(l.readLoop)
	l.done.Go(l.writeLoop)
	return l
}

// Post tells the other side something.
func (l *Link) Post(kind uint8, body []byte) { l.post(kind, 0, body) }

// Reply answers f, with an error if there is one.
func (l *Link) Reply(f Frame, body []byte, err error) {
	if err != nil {
		l.post(kindFault, f.ID, []byte(err.Error()))
		return
	}
	l.post(kindReply, f.ID, body)
}

// Ask asks the other side and waits for the answer, which is an error of type Fault if it says so.
func (l *Link) Ask(ctx context.Context, kind uint8, body []byte) ([]byte, error) {
	answer := make(chan Frame, 1)
	l.mu.Lock()
	if l.err != nil || l.last {
		l.mu.Unlock()
		return nil, ErrGone
	}
	l.id = max(l.id+1, 1)
	id := l.id
	l.asked[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.asked, id)
		l.mu.Unlock()
	}()
	l.post(kind, id, body)
	select {
	case f := <-answer:
		return answerOf(f)
	case <-l.read:
		select { // it may have come last
		case f := <-answer:
			return answerOf(f)
		default:
			return nil, ErrGone
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func answerOf(f Frame) ([]byte, error) {
	if f.Kind == kindFault {
		return nil, Fault(f.Body)
	}
	return f.Body, nil
}

// Done is closed when nothing comes any more.
func (l *Link) Done() <-chan struct{} { return l.read }

// Hold makes the other side wait with all that it has to say, and ends the link but for its
// connection, which it returns: a link made of that, here or in another process, goes on from there
// with Resume.
func (l *Link) Hold(ctx context.Context) (*Conn, error) {
	l.mu.Lock()
	l.holding = true
	l.queueLocked(frameOf(kindHold, 0, nil))
	l.last = true
	l.mu.Unlock()
	l.notify()
	select {
	case <-l.read:
	case <-ctx.Done():
		_ = l.Close()
		return nil, ctx.Err()
	}
	l.notify()
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != errHeld {
		_ = l.conn.Close()
		return nil, ErrGone
	}
	return l.conn, nil
}

// Held reports whether Hold has ended the link.
func (l *Link) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == errHeld
}

// Resume lets the other side, which was held, go on.
func (l *Link) Resume() { l.post(kindResume, 0, nil) }

// Close sends what is queued, if the other side takes it, and ends the link.
func (l *Link) Close() error {
	l.mu.Lock()
	l.last = true
	l.mu.Unlock()
	l.notify()
	l.done.Wait()
	return l.conn.Close()
}

// Abort ends the link at once.
func (l *Link) Abort() {
	l.fail(ErrGone)
	_ = l.Close()
}

// errHeld is how a link ends whose other side is held.
var errHeld = errors.New("held")

// fail ends the link. A connection that is not to be used again is shut down, which wakes both loops.
func (l *Link) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	held := l.err == errHeld
	if !held {
		l.queue, l.later = nil, nil
	}
	l.mu.Unlock()
	if !held {
		_ = l.conn.conn.CloseRead()
		_ = l.conn.conn.CloseWrite()
	}
	l.notify()
}

func (l *Link) post(kind uint8, id uint32, body []byte) {
	frame := frameOf(kind, id, body)
	l.mu.Lock()
	full := l.queued+len(frame) > maxQueued
	if !full {
		l.queueLocked(frame)
	}
	l.mu.Unlock()
	if full {
		l.fail(errFull)
		return
	}
	l.notify()
}

func (l *Link) queueLocked(frame []byte) {
	switch {
	case l.err != nil || l.last:
		return
	case l.held:
		l.later = append(l.later, frame)
	default:
		l.queue = append(l.queue, frame)
	}
	l.queued += len(frame)
}

func frameOf(kind uint8, id uint32, body []byte) []byte {
	return append(appendHeader(make([]byte, 0, headerLen+len(body)), len(body), kind, id), body...)
}

func (l *Link) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// writeLoop sends what is queued until the link has ended.
func (l *Link) writeLoop() {
	for {
		l.mu.Lock()
		queue, over := l.queue, l.err != nil || l.last && len(l.queue) == 0
		l.queue = nil
		l.mu.Unlock()
		for _, frame := range queue {
			_ = l.conn.conn.SetWriteDeadline(time.Now().Add(patience))
			if _, err := l.conn.conn.Write(frame); err != nil {
				l.fail(err)
				return
			}
			l.mu.Lock()
			l.queued -= len(frame)
			l.mu.Unlock()
		}
		switch {
		case len(queue) > 0:
		case over:
			l.finish()
			return
		default:
			<-l.wake
		}
	}
}

// finish ends what is to be read, once all is sent, unless that is still of use.
func (l *Link) finish() {
	l.mu.Lock()
	holding := l.holding
	l.mu.Unlock()
	if !holding {
		l.fail(ErrGone)
	}
}

// readLoop hands on what comes.
func (l *Link) readLoop() {
	defer close(l.read)
	// Who is held sends nothing after it has said so: there is nothing to be read too much.
	r := bufio.NewReader(l.conn.conn)
	var head [headerLen]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			l.fail(ErrGone)
			return
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > MaxMessage {
			l.fail(ErrTooLarge)
			return
		}
		f := Frame{Kind: head[4], ID: binary.BigEndian.Uint32(head[5:]), Body: make([]byte, size)}
		if _, err := io.ReadFull(r, f.Body); err != nil {
			l.fail(ErrGone)
			return
		}
		if f.Kind == kindHeld {
			l.fail(errHeld)
			return
		}
		l.dispatch(f)
	}
}

func (l *Link) dispatch(f Frame) {
	switch f.Kind {
	case kindReply, kindFault:
		l.mu.Lock()
		answer := l.asked[f.ID]
		delete(l.asked, f.ID)
		l.mu.Unlock()
		if answer != nil {
			answer <- f
		}
	case kindHold:
		l.mu.Lock()
		l.queueLocked(frameOf(kindHeld, 0, nil))
		l.held = true // what is posted from now on waits
		l.mu.Unlock()
		l.notify()
	case kindResume:
		l.mu.Lock()
		l.held = false
		l.queue, l.later = append(l.queue, l.later...), nil
		l.mu.Unlock()
		l.notify()
	default:
		if f.Kind >= FirstKind {
			l.handle(l, f)
		}
	}
}
