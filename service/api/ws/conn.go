package ws

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"rtcd/service/api/internal/stream"
	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/policy"
)

const (
	// Acknowledgements are looked up at least after so many messages and this much time.
	pruneMessages = 128
	pruneInterval = 100 * time.Millisecond

	// settleTimeout is how long an ended connection gets to acknowledge what is under way.
	settleTimeout = 250 * time.Millisecond

	// farewellTimeout is how long a connection that is closed with a code gets to take the frame and
	// answer it.
	farewellTimeout = 250 * time.Millisecond

	// maxUndecodable is how many messages of a connection of SubprotocolV2 make no sense before it is
	// closed. Established clients may send as many as they want.
	maxUndecodable = 20

	// blockedLogEvery is the time between two log lines about messages that a client may not send.
	blockedLogEvery = 10 * time.Second

	// keepBuffer is the largest read buffer a connection keeps between messages.
	keepBuffer = 64 << 10
)

// A conn is one WebSocket of a client.
type conn struct {
	// Fixed at creation.
	server *Server
	client *client
	peer   Peer
	remote string // for the record
	v2     bool   // takes the messages of SubprotocolV2
	id     string
	socket *websocket.Conn
	stream *stream.Conn // below socket; nil if the listener was not wrapped
	log    *slog.Logger
	done   chan struct{} // closed when the connection is given up
	wake   chan struct{} // one slot: there is something for the write pump
	pong   chan string   // one slot: the payload of the client's latest ping
	ended  chan struct{} // closed when nothing of the connection is running

	// For any goroutine.
	roles atomic.Pointer[policy.Roles]

	// Owned by the read pump.
	limiter    *rate.Limiter
	aliveUntil time.Time // without a pong until then the peer is dead
	throttled  bool
	buf        bytes.Buffer

	undecodable   int
	blocked       uint64
	blockedLogged time.Time

	// Guarded by Server.mu.
	queue      []item // to be written
	queueBytes int
	ledger     []item // written, or being written, and not known to be acknowledged
	failing    bool   // given up: takes no more messages
	finishing  bool   // to be closed once the queue is empty
	dismissed  bool   // the peer was told to close it, or is just being told
	code       int    // of the close frame, 0 for none
	err        error  // why it was given up
}

func newConn(s *Server, cl *client, p Peer, socket *websocket.Conn) *conn {
	c := &conn{
		server:  s,
		client:  cl,
		peer:    p,
		remote:  remoteOf(p, socket),
		v2:      socket.Subprotocol() == wire.SubprotocolV2,
		id:      newConnID(),
		socket:  socket,
		stream:  stream.Of(socket.NetConn()),
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		pong:    make(chan string, 1),
		ended:   make(chan struct{}),
		limiter: rate.NewLimiter(rate.Limit(s.cfg.InboundPerSecond), s.cfg.InboundBurst),
	}
	c.roles.Store(&p.Roles)
	c.log = s.log.With("clientID", cl.id, "connID", c.id)
	return c
}

// remoteOf returns where a connection comes from: with the port, unless a proxy is in between.
func remoteOf(p Peer, socket *websocket.Conn) string {
	addr := socket.RemoteAddr().String()
	if from, err := netip.ParseAddrPort(addr); p.Remote.IsValid() && (err != nil || from.Addr().Unmap() != p.Remote.Unmap()) {
		return p.Remote.String()
	}
	return addr
}

// run serves the connection until it ends, then hands on what it leaves behind.
func (c *conn) run() {
	s := c.server
	defer close(c.ended)
	defer c.closeSocket(true)
	c.client.tenant.ConnectionOpened()
	defer c.client.tenant.ConnectionClosed()
	c.prepare()
	s.attach(c, wire.AppendHello(nil, c.client.id, c.id))
	s.confirm(c)
	s.record(c.event(EventOpen))
	c.log.Info("client connected", "remoteAddr", c.socket.RemoteAddr().String())

	written := make(chan struct{})
	go func() {
		defer close(written)
		s.giveUp(c, c.writePump())
	}()
	s.giveUp(c, c.readPump())
	<-written

	acked := int64(math.MaxInt64)
	if c.stream != nil {
		acked = c.stream.Settle(settleTimeout)
	}
	c.closeSocket(c.stream != nil && acked < c.stream.Written())
	s.detach(c, acked)
	e := c.event(EventClose)
	e.Reason = reasonOf(c.err, "broken")
	s.record(e)
	c.log.Warn("client disconnected", "err", c.err)
}

// giveUp ends the connection for the first reason that is given.
func (s *Server) giveUp(c *conn, err error) {
	s.mu.Lock()
	defer s.unlock()
	s.fail(c, err)
}

// abort wakes both pumps. The descriptor stays open as long as its state is of interest. With a
// close code they get a moment to say goodbye.
func (c *conn) abort() {
	close(c.done)
	switch {
	case c.stream == nil:
		_ = c.socket.Close()
	case c.code != 0:
		c.stream.AbortAt(time.Now().Add(farewellTimeout))
	default:
		c.stream.Abort()
	}
}

// farewell tells the peer why the connection ends, if there is a code for it.
func (c *conn) farewell() {
	c.server.mu.Lock()
	code, err := c.code, c.err
	c.server.mu.Unlock()
	if code != 0 {
		_ = c.control(websocket.CloseMessage, string(websocket.FormatCloseMessage(code, err.Error())))
	}
}

// leftover reads on, and handles nothing, until the peer has closed as well or its time is over:
// unread input would make the system throw away what was written last.
func (c *conn) leftover() error {
	for {
		if _, _, err := c.socket.NextReader(); err != nil {
			return errStopped
		}
	}
}

// closeSocket closes the connection. With discard, what the peer has not acknowledged is not
// sent any more.
func (c *conn) closeSocket(discard bool) {
	if c.stream != nil && discard {
		c.stream.Discard()
		return
	}
	if c.stream != nil {
		_ = c.stream.Close()
		return
	}
	_ = c.socket.Close()
}

func (c *conn) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// prepare sets limits and control handlers. Only the write pump writes: control frames answered
// from within reads would blur where in the stream a message ends.
func (c *conn) prepare() {
	cfg := &c.server.cfg
	c.socket.SetReadLimit(cfg.MaxMessageBytes)
	c.alive()
	c.socket.SetPongHandler(func(string) error {
		if !c.throttle() {
			return errStopped
		}
		c.alive()
		return nil
	})
	c.socket.SetPingHandler(func(payload string) error {
		if !c.throttle() {
			return errStopped
		}
		// RFC 6455 section 5.5.3: of several pings it is enough to answer the latest.
		select {
		case <-c.pong:
		default:
		}
		c.pong <- payload
		return nil
	})
	c.socket.SetCloseHandler(func(int, string) error { return nil })
}

// alive notes a sign of life.
func (c *conn) alive() {
	c.aliveUntil = time.Now().Add(c.server.cfg.PongTimeout)
	_ = c.socket.SetReadDeadline(c.aliveUntil)
}

var errStopped = errors.New("connection was given up")

// readPump handles messages in the order they come, until the connection ends.
func (c *conn) readPump() error {
	for {
		kind, r, err := c.socket.NextReader()
		if err != nil {
			return c.readError(err)
		}
		if kind != websocket.BinaryMessage {
			if !c.throttle() {
				return c.leftover()
			}
			c.text()
			continue
		}
		c.buf.Reset()
		if c.buf.Cap() > keepBuffer {
			c.buf = bytes.Buffer{}
		}
		if _, err := c.buf.ReadFrom(r); err != nil {
			return c.readError(err)
		}
		if !c.throttle() {
			return c.leftover()
		}
		c.receive(c.buf.Bytes())
	}
}

func (c *conn) readError(err error) error {
	if errors.Is(err, websocket.ErrReadLimit) {
		c.server.metrics.LimitHit(LimitMessage)
	}
	var timeout net.Error
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errDead
	case errors.Is(err, io.EOF), errors.As(err, &closed):
		return errPeerClosed
	case isReset(err):
		return errPeerReset
	}
	return err
}

// isReset reports whether the peer ended the connection without a word.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// throttle makes the read pump wait while the client sends faster than it may; TCP then slows
// the client down. It reports false once the connection was given up. A pong may be among what
// is not read meanwhile, so the time does not count against the client.
func (c *conn) throttle() bool {
	select {
	case <-c.done:
		return false
	default:
	}
	wait := c.limiter.Reserve().Delay()
	if wait <= 0 {
		c.throttled = false
		return true
	}
	if !c.throttled {
		c.throttled = true
		c.server.metrics.LimitHit(LimitInboundRate)
		c.server.quiet.Warn("client sends too fast", "clientID", c.client.id, "limit", LimitInboundRate)
	}
	began := time.Now()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.done:
		return false
	}
	c.aliveUntil = c.aliveUntil.Add(time.Since(began))
	_ = c.socket.SetReadDeadline(c.aliveUntil)
	return true
}

// writePump writes what is queued, and pings, until the connection is given up.
func (c *conn) writePump() error {
	ping := time.NewTicker(c.server.cfg.PingInterval)
	defer ping.Stop()
	prune := time.NewTicker(pruneInterval)
	defer prune.Stop()
	unpruned := 0
	for {
		select { // control frames are due even while there is always something to write
		case <-ping.C:
			if err := c.control(websocket.PingMessage, ""); err != nil {
				return err
			}
		case payload := <-c.pong:
			if err := c.control(websocket.PongMessage, payload); err != nil {
				return err
			}
		default:
		}
		it, next := c.next()
		switch next {
		case writeItem:
			if err := c.write(it); err != nil {
				return err
			}
			if unpruned++; unpruned >= pruneMessages {
				unpruned = 0
				c.prune()
			}
			continue
		case writeBye:
			bye := websocket.FormatCloseMessage(websocket.CloseServiceRestart, "server hands over")
			if err := c.control(websocket.CloseMessage, string(bye)); err != nil {
				return err
			}
			continue
		case writeEnd:
			return errShuttingDown
		}
		select {
		case <-c.wake:
			c.prune()
		case <-prune.C:
			if unpruned > 0 {
				unpruned = c.prune()
			}
		case payload := <-c.pong:
			if err := c.control(websocket.PongMessage, payload); err != nil {
				return err
			}
		case <-ping.C:
			if err := c.control(websocket.PingMessage, ""); err != nil {
				return err
			}
		case <-c.done:
			c.farewell()
			return errStopped
		}
	}
}

// control writes a control frame.
func (c *conn) control(kind int, payload string) error {
	err := c.socket.WriteControl(kind, []byte(payload), time.Now().Add(c.server.cfg.WriteTimeout))
	return c.writeError(err)
}

// write writes one message and notes where in the stream it ends.
func (c *conn) write(it item) error {
	_ = c.socket.SetWriteDeadline(time.Now().Add(c.server.cfg.WriteTimeout))
	if err := c.socket.WriteMessage(websocket.BinaryMessage, it.data); err != nil {
		return c.writeError(err)
	}
	var end int64
	if c.stream != nil {
		end = c.stream.Written()
	}
	c.server.mu.Lock()
	c.ledger[len(c.ledger)-1].end = end
	c.server.mu.Unlock()
	c.client.tenant.Sent(it.kind.metric())
	return nil
}

func (c *conn) writeError(err error) error {
	var timeout net.Error
	switch {
	case isReset(err):
		return errPeerReset
	case !errors.As(err, &timeout) || !timeout.Timeout():
		return err
	}
	select {
	case <-c.done: // the deadline was abort's
		return err
	default:
	}
	c.server.metrics.LimitHit(LimitStall)
	return errStalled
}

// What the write pump does next.
type nextWrite int

const (
	writeNothing nextWrite = iota
	writeItem
	writeBye
	writeEnd
)

// next moves the first message of the queue to the ledger.
func (c *conn) next() (item, nextWrite) {
	s := c.server
	s.mu.Lock()
	defer s.unlock()
	if c.failing {
		return item{}, writeNothing
	}
	if len(c.queue) == 0 {
		c.queue = nil
		switch {
		case c.dismissed: // what the peer sends before it closes is handled
		case c.finishing && s.handing:
			c.dismissed = true
			return item{}, writeBye
		case c.finishing:
			s.fail(c, errShuttingDown)
			return item{}, writeEnd
		}
		return item{}, writeNothing
	}
	it := c.queue[0]
	c.queue[0] = item{}
	c.queue = c.queue[1:]
	c.queueBytes -= len(it.data)
	it.end = -1
	c.ledger = append(c.ledger, it)
	return it, writeItem
}

// push queues an item, if there is room. One that the client may not get is taken and thrown away.
func (c *conn) push(it item) bool {
	cfg := &c.server.cfg
	if !c.mayOut(it.kind) {
		c.server.metrics.Discarded(metrics.BlockedOut)
		return true
	}
	if c.failing || len(c.queue) >= cfg.QueueMessages || c.queueBytes+len(it.data) > cfg.QueueBytes && len(c.queue) > 0 {
		return false
	}
	it.parked = time.Time{}
	c.queue = append(c.queue, it)
	c.queueBytes += len(it.data)
	c.notify()
	return true
}

// take removes the route's items from the queue and returns them.
func (c *conn) take(r *route) []item {
	var taken []item
	c.queue = slices.DeleteFunc(c.queue, func(it item) bool {
		if it.route != r {
			return false
		}
		taken = append(taken, it)
		c.queueBytes -= len(it.data)
		return true
	})
	return taken
}

// carries reports whether messages of the route are queued or under way.
func (c *conn) carries(r *route) bool {
	of := func(it item) bool { return it.route == r }
	return slices.ContainsFunc(c.ledger, of) || slices.ContainsFunc(c.queue, of)
}

// prune forgets what the peer has acknowledged and returns how much is still under way.
func (c *conn) prune() int {
	acked := int64(math.MaxInt64)
	if c.stream != nil {
		acked, _ = c.stream.Acknowledged()
	}
	s := c.server
	s.mu.Lock()
	defer s.unlock()
	n := 0
	for n < len(c.ledger) && c.ledger[n].end >= 0 && c.ledger[n].end <= acked {
		n++
	}
	c.ledger = slices.Delete(c.ledger, 0, n)
	if n > 0 {
		s.settled(c)
	}
	return len(c.ledger)
}

// undelivered returns, in order, what the peer did not get if it acknowledged acked bytes.
func (c *conn) undelivered(acked int64) []item {
	var left []item
	for _, it := range c.ledger {
		if it.end < 0 || it.end > acked {
			left = append(left, it)
		}
	}
	left = append(left, c.queue...)
	c.ledger, c.queue, c.queueBytes = nil, nil, 0
	return left
}
