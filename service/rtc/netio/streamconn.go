package netio

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	frameHeader   = 2    // RFC 4571 section 2: the length
	maxFrame      = 2048 // without it
	maxFirstFrame = 512  // what ICE reads of the first one
	streamBuffer  = 8192 // for reading, several frames
	stunBinding   = 0x0001
)

var (
	errFrameSize = errors.New("frame empty or too large")
	errNoFrame   = errors.New("write is not one whole frame")
)

// stream is one ICE-TCP connection. To ICE it is a net.Conn that yields the frames of STUN and
// DTLS; frames of media turn off to the data plane within Read, on ICE's reading goroutine, so
// that they too are run to completion. It has one goroutine of its own, which reads the first
// frame, then offers the connection to ICE, then writes what is queued.
type stream struct {
	streams *streams
	conn    net.Conn
	path    Path
	out     *frameQueue
	number  int

	active  atomic.Int64  // Mux.now of the latest frame
	ended   chan struct{} // closed by end
	endOnce sync.Once

	// Owned by who reads: run until ICE has the connection, then the caller of Read.
	in      []byte // what was read
	r, w    int    // the unread part of it
	control []byte // the part of a control frame ICE has not read yet, within in
	reader  Reader // the data plane's; nil until there is something to ask it
	batch   *Batch
	rx      rxCounts
}

func newStream(t *streams, conn net.Conn, path Path, number int) *stream {
	s := &stream{
		streams: t,
		conn:    conn,
		path:    path,
		out:     newFrameQueue(t.mux.cfg.StreamQueue),
		number:  number,
		ended:   make(chan struct{}),
	}
	s.touch()
	return s
}

func (s *stream) touch() { s.active.Store(int64(s.streams.mux.now())) }

// run is the connection's goroutine.
func (s *stream) run() {
	defer s.end()
	if !s.first() {
		return
	}
	select {
	case s.streams.ready <- s:
		s.write()
	case <-s.streams.done:
	case <-s.ended:
	}
}

// first reads until there is a whole frame, which must be a STUN request and come in time. It
// leaves the frame for Read.
func (s *stream) first() bool {
	cfg := &s.streams.mux.cfg
	if s.conn.SetReadDeadline(time.Now().Add(cfg.StreamFirstFrame)) != nil {
		return false
	}
	s.in = make([]byte, maxFirstFrame+frameHeader)
	for {
		frame, err := parseFrame(s.in[s.r:s.w], maxFirstFrame)
		if err == nil && frame == nil {
			err = s.fill()
		}
		switch {
		case err != nil && s.closed():
			return false
		case err != nil:
			s.drop(DropFirstFrame)
			return false
		case frame != nil && (!isSTUN(frame) || binary.BigEndian.Uint16(frame) != stunBinding):
			s.drop(DropFirstFrame)
			return false
		case frame != nil:
			return s.conn.SetReadDeadline(time.Time{}) == nil
		}
	}
}

// parseFrame returns the first frame of b without its length, nil if it is not whole yet.
func parseFrame(b []byte, limit int) ([]byte, error) {
	if len(b) < frameHeader {
		return nil, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	if n == 0 || n > limit {
		return nil, errFrameSize
	}
	if len(b) < frameHeader+n {
		return nil, nil
	}
	return b[frameHeader : frameHeader+n : frameHeader+n], nil
}

// fill reads more, at the end of what is unread. Nothing read before may be in use any more.
func (s *stream) fill() error {
	if s.r > 0 {
		copy(s.in, s.in[s.r:s.w])
		s.r, s.w = 0, s.w-s.r
	}
	n, err := s.conn.Read(s.in[s.w:])
	s.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Read reads frames of STUN and DTLS, with their length. Frames of media that come between them
// go to the data plane. It is not to be called concurrently.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.control) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.control)
	s.control = s.control[n:]
	return n, nil
}

// next reads on until there is a control frame or an error. Media frames that are there together
// are one batch.
func (s *stream) next() error {
	if len(s.in) < streamBuffer {
		in := make([]byte, streamBuffer)
		s.w = copy(in, s.in[s.r:s.w])
		s.in, s.r = in, 0
	}
	for {
		frame, err := parseFrame(s.in[s.r:s.w], maxFrame)
		if err != nil {
			s.drop(DropFrameSize)
			s.end()
		}
		if err == nil && frame != nil {
			start := s.r
			s.r += frameHeader + len(frame)
			if s.sort(frame) {
				s.control = s.in[start:s.r]
				s.flush()
				return nil
			}
			continue
		}
		s.flush()
		if err == nil {
			err = s.fill()
		}
		if err != nil {
			if s.closed() {
				err = &net.OpError{Op: "read", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: net.ErrClosed}
			}
			return err
		}
	}
}

// sort handles one frame and reports whether it is for ICE.
func (s *stream) sort(frame []byte) bool {
	s.touch()
	s.rx.packets++
	s.rx.bytes += uint64(len(frame))
	k := classify(frame)
	if k != kindSTUN && k != kindOther && s.reader == nil {
		m := s.streams.mux
		s.batch = m.newBatch(tcpBatchSlots, s.number)
		s.reader = m.cfg.Media.NewReader(s.batch)
	}
	known := s.reader != nil && s.reader.Known(s.path)
	switch {
	case k == kindMedia && known:
		s.rx.media++
		s.reader.Receive(frame, s.path)
	case k == kindMedia:
		s.rx.drop(DropUnknownMedia)
	case k == kindOther:
		s.rx.drop(DropMalformed)
	case k == kindAlert && known:
		s.rx.drop(DropAlert)
	default:
		if !known {
			if why, ok := s.streams.mux.budgets.allow(s.path, nil, s.streams.mux.now()); !ok {
				s.rx.drop(why)
				return false
			}
		}
		s.rx.control++
		return true
	}
	return false
}

// flush ends a batch of frames.
func (s *stream) flush() {
	if s.rx.packets == 0 {
		return
	}
	if s.reader != nil {
		s.reader.Flush()
		s.batch.Flush()
	}
	s.streams.mux.counters.addRx(&s.rx)
}

// Write queues one frame, given whole and with its length. A frame for which there is no room is
// lost, as it might be over UDP.
func (s *stream) Write(frame []byte) (int, error) {
	body, err := parseFrame(frame, maxFrame)
	if err != nil {
		return 0, err
	}
	if body == nil || len(body) != len(frame)-frameHeader {
		return 0, errNoFrame
	}
	if why, ok := s.out.push(body, true); !ok {
		s.drop(why)
		if why == DropNoPath {
			return 0, &net.OpError{Op: "write", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: net.ErrClosed}
		}
	}
	s.streams.mux.proven(s.path)
	return len(frame), nil
}

// write sends what is queued until the connection ends. A connection without frames for too long,
// or which takes nothing for that long, is closed.
func (s *stream) write() {
	idle := s.streams.mux.cfg.StreamIdle
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case <-s.out.wake:
			if err := s.drain(idle); err != nil {
				return
			}
		case <-timer.C:
			quiet := s.streams.mux.now() - time.Duration(s.active.Load())
			if quiet >= idle {
				s.drop(DropIdle)
				return
			}
			timer.Reset(idle - quiet)
		case <-s.ended:
			return
		}
	}
}

// drain writes until the queue is empty.
func (s *stream) drain(patience time.Duration) error {
	for {
		b := s.out.take()
		if b == nil {
			return nil
		}
		err := s.conn.SetWriteDeadline(time.Now().Add(patience))
		if err == nil {
			_, err = s.conn.Write(b)
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !s.closed() {
				s.drop(DropStalled)
			}
			return err
		}
	}
}

// end closes the connection; the goroutine follows.
func (s *stream) end() {
	s.endOnce.Do(func() {
		close(s.ended)
		s.out.close()
		s.streams.remove(s)
		_ = s.conn.Close() // nobody to tell
	})
}

func (s *stream) closed() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *stream) drop(why Drop) { s.streams.mux.counters.drop(why) }

// Close closes the connection.
func (s *stream) Close() error {
	s.end()
	return nil
}

// LocalAddr returns the address the connection was accepted on.
func (s *stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr returns the peer's address.
func (s *stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// SetDeadline sets the read deadline; Write does not block.
func (s *stream) SetDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetReadDeadline sets the time at which Read gives up.
func (s *stream) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing: Write does not block.
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// frameQueue holds whole frames for one writer, bounded in bytes. Media leaves an eighth of it to
// STUN and DTLS.
type frameQueue struct {
	limit int
	wake  chan struct{} // has room for one; sent to when there is something to take

	mu      sync.Mutex
	waiting []byte // guarded by mu, as is the rest
	spare   []byte // the buffer take returned before, for the writer to fill again
	taken   int    // bytes the writer is busy with
	closed  bool
}

// keepBuffer is the size up to which an emptied buffer is kept for the next frames.
const keepBuffer = 32 << 10

func newFrameQueue(limit int) *frameQueue {
	return &frameQueue{limit: limit, wake: make(chan struct{}, 1)}
}

// push appends one frame, or tells why not.
func (q *frameQueue) push(body []byte, control bool) (Drop, bool) {
	limit := q.limit
	if !control {
		limit -= limit / 8
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return DropNoPath, false
	}
	if q.taken+len(q.waiting)+frameHeader+len(body) > limit {
		q.mu.Unlock()
		return DropStreamQueue, false
	}
	wasEmpty := len(q.waiting) == 0
	q.waiting = binary.BigEndian.AppendUint16(q.waiting, uint16(len(body)))
	q.waiting = append(q.waiting, body...)
	q.mu.Unlock()
	if wasEmpty {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return 0, true
}

// take returns all frames that wait, nil if none do. They are the caller's until it calls take
// again.
func (q *frameQueue) take() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken = 0
	if len(q.waiting) == 0 {
		if cap(q.waiting) > keepBuffer {
			q.waiting = nil
		}
		if cap(q.spare) > keepBuffer {
			q.spare = nil
		}
		return nil
	}
	b := q.waiting
	q.waiting, q.spare = q.spare[:0], b
	q.taken = len(b)
	return b
}

func (q *frameQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.waiting, q.spare = nil, nil
}
