package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/wire"
)

const (
	// readTimeout is how long the server may be silent. It pings every 10 s.
	readTimeout  = 25 * time.Second
	writeTimeout = 10 * time.Second
	pongTimeout  = time.Second
	// goodbyeTimeout bounds the end of a connection that is closed in order.
	goodbyeTimeout = time.Second
	// maxInbound bounds a message from the server, far above the largest description.
	maxInbound = 8 << 20
	// dropLogEvery is the time between two log lines about messages that make no sense.
	dropLogEvery = 10 * time.Second
	// steadyAfter is how long a connection lasts that proves that all is well again.
	steadyAfter = 10 * time.Second
)

// A Conn is a long-lived connection to the server. Its methods are safe for concurrent use.
type Conn struct {
	client *Client
	out    *outbox
	events chan Event

	ctx    context.Context // ends with the Conn
	cancel context.CancelCauseFunc
	done   chan struct{} // closed once all goroutines have ended
	err    error         // why the Conn ended; read after done

	reconnects, dropped atomic.Uint64
	dropLogged          time.Time // owned by the read pump
}

// Stats are counts since Connect.
type Stats struct {
	Reconnects uint64 // times the connection was lost and opened again
	Dropped    uint64 // messages of the server that made no sense
}

// Connect opens the WebSocket. The first attempt is made once, and its error is returned;
// ErrUnauthorized means that the client is not registered or its key is wrong. From then on the
// Conn lives, and connects again when it has to, until ctx ends, Close is called, the server
// refuses the credentials, or Config.GiveUpAfter has passed. ctx is thus not for a timeout of
// the first attempt, which is bounded anyway. Close must be called in the end.
func (c *Client) Connect(ctx context.Context) (*Conn, error) {
	ws, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	conn := &Conn{
		client: c,
		out:    newOutbox(c.cfg.SendQueue, c.cfg.SendQueueBytes),
		events: make(chan Event, c.cfg.EventBuffer),
		ctx:    ctx, cancel: cancel, done: make(chan struct{}),
	}
	go conn.run(ws)
	return conn, nil
}

// Events returns the channel of events. It is closed when the Conn has ended; Err says why.
func (c *Conn) Events() <-chan Event { return c.events }

// Done is closed when the Conn has ended and its goroutines are gone.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns nil while the Conn lives, and then why it ended: ErrClosed after Close, else the
// error of ctx, or that of the last attempt to connect.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Stats returns the counts so far, also after the end.
func (c *Conn) Stats() Stats {
	return Stats{Reconnects: c.reconnects.Load(), Dropped: c.dropped.Load()}
}

// Flush waits until everything sent so far has been written to the socket, ctx ends, or the
// Conn has ended. With others sending all the time it may wait longer than it has to.
func (c *Conn) Flush(ctx context.Context) error {
	select {
	case <-c.out.drained():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", ctx.Err())
	case <-c.done:
		return fmt.Errorf("flush: %w", ErrClosed)
	}
}

// Close ends the Conn and waits for its goroutines. What waits to be sent is dropped (see
// Flush); sessions that were not left go on. It may be called more than once.
func (c *Conn) Close() error {
	c.cancel(ErrClosed)
	<-c.done
	return nil
}

func (c *Conn) enqueue(m message) error { return c.out.add(m) }

// run keeps a connection up until the Conn ends.
func (c *Conn) run(ws *websocket.Conn) {
	defer close(c.done)
	defer close(c.events)
	defer c.cancel(nil)
	defer func() {
		if n := c.out.close(); n > 0 {
			c.client.log.Warn("connection to rtcd ended with messages unsent", "messages", n, "err", c.err)
		}
	}()
	var failures int
	for resumed := false; ; resumed = true {
		began := time.Now()
		err := c.serve(ws, resumed)
		if c.ctx.Err() != nil {
			c.err = context.Cause(c.ctx)
			c.tell(Disconnected{Err: c.err})
			return
		}
		c.client.log.Warn("connection to rtcd lost", "err", err)
		if !c.emit(Disconnected{Err: err}) {
			c.err = context.Cause(c.ctx)
			return
		}
		var bye *websocket.CloseError
		if time.Since(began) >= steadyAfter || errors.As(err, &bye) && bye.Code == websocket.CloseServiceRestart {
			failures = 0 // a server that hands over is about to be there again
		}
		ws, err = c.reopen(&failures)
		if err != nil {
			c.err = err
			return
		}
		c.reconnects.Add(1)
		c.client.log.Info("connection to rtcd is back")
	}
}

// reopen tries to connect until it works, and counts the failures. Its error is final.
func (c *Conn) reopen(failures *int) (*websocket.Conn, error) {
	cfg := &c.client.cfg
	began := time.Now()
	var last error
	for {
		delay := backoff(cfg.MinBackoff, cfg.MaxBackoff, *failures, rand.Float64())
		var refusal *APIError
		if errors.As(last, &refusal) {
			delay = max(delay, min(refusal.RetryAfter, cfg.MaxBackoff))
		}
		if cfg.GiveUpAfter > 0 && last != nil && time.Since(began)+delay > cfg.GiveUpAfter {
			return nil, fmt.Errorf("connect again, for %v: %w", cfg.GiveUpAfter, last)
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return nil, context.Cause(c.ctx)
		}
		*failures++
		ws, err := c.client.open(c.ctx)
		switch {
		case err == nil:
			return ws, nil
		case c.ctx.Err() != nil:
			return nil, context.Cause(c.ctx)
		case errors.Is(err, ErrUnauthorized):
			return nil, fmt.Errorf("connect again: %w", err)
		}
		c.client.log.Debug("rtcd is not back yet", "attempt", *failures, "err", err)
		last = err
	}
}

// backoff returns the delay after a number of failures, shortened by chance, a number in [0, 1).
func backoff(least, most time.Duration, failures int, chance float64) time.Duration {
	d := least
	for ; failures > 0 && d < most; failures-- {
		d *= 2
	}
	d = min(d, most)
	return d - time.Duration(chance*float64(d)/2)
}

// serve carries messages over ws until it breaks or the Conn ends, and returns why.
func (c *Conn) serve(ws *websocket.Conn, resumed bool) error {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	known := c.out.known()
	lost := &lostSet{}
	var bye *websocket.CloseError // that the server has sent
	read := make(chan struct{})   // closed once the read pump has ended
	var pumps sync.WaitGroup
	pumps.Go(func() {
		<-ctx.Done()
		if c.ctx.Err() != nil {
			sayGoodbye(ws, read)
		}
		_ = ws.Close()
	})
	if c.emit(Connected{Resumed: resumed, V2: ws.Subprotocol() == wire.SubprotocolV2}) {
		pumps.Go(func() {
			if err := c.writePump(ctx, ws, known); err != nil {
				cancel(err)
			}
		})
		if resumed && len(known) > 0 {
			pumps.Go(func() { c.verify(ctx, known, lost) })
		}
		err := c.readPump(ws, lost)
		errors.As(err, &bye)
		cancel(err)
	}
	close(read)
	pumps.Wait()
	if bye != nil { // says more than that a write failed
		return fmt.Errorf("read: %w", bye)
	}
	return context.Cause(ctx)
}

// sayGoodbye ends the WebSocket in order and waits a moment for the server to do the same. To
// close a socket with something unread in it would make the server lose what we wrote last.
func sayGoodbye(ws *websocket.Conn, read <-chan struct{}) {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(goodbyeTimeout)) != nil {
		return
	}
	timer := time.NewTimer(goodbyeTimeout)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C:
	}
}

// writePump claims the known sessions, then sends what is in the outbox. It returns nil once
// ctx has ended.
func (c *Conn) writePump(ctx context.Context, ws *websocket.Conn, known knownSessions) error {
	write := func(data []byte) error {
		_ = ws.SetWriteDeadline(time.Now().Add(writeTimeout)) // only sets a field
		return ws.WriteMessage(websocket.BinaryMessage, data)
	}
	for _, sessions := range known {
		for id := range sessions {
			if err := write(wire.AppendReconnect(nil, id)); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
	}
	for {
		m, ok := c.out.head()
		if !ok {
			select {
			case <-c.out.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		err := write(m.data)
		c.out.sent(err == nil)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

// readPump turns messages into events until the connection breaks.
func (c *Conn) readPump(ws *websocket.Conn, lost *lostSet) error {
	alive := func() { _ = ws.SetReadDeadline(time.Now().Add(readTimeout)) } // fails only on a closed socket
	alive()
	ws.SetReadLimit(maxInbound)
	ws.SetPingHandler(func(data string) error {
		alive()
		err := ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(pongTimeout))
		var timeout net.Error
		if errors.Is(err, websocket.ErrCloseSent) || errors.As(err, &timeout) && timeout.Timeout() {
			return nil // the write pump is at it, and has a deadline of its own
		}
		return err
	})
	for {
		kind, data, err := ws.ReadMessage()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if kind == websocket.BinaryMessage {
			if ev := c.event(data, lost); ev != nil {
				c.emit(ev) // once the Conn has ended, what still comes is read and thrown away
			}
		}
		alive() // the consumer may have kept us for longer than the deadline
	}
}

// event decodes a message from the server. One that makes no sense is counted and is nil.
func (c *Conn) event(data []byte, lost *lostSet) Event {
	m, err := wire.DecodeServer(data)
	if err != nil {
		c.drop("bytes", len(data), "err", err)
		return nil
	}
	ref := Ref{CallID: m.Signal.CallID, UserID: m.Signal.UserID, SessionID: m.Signal.SessionID}
	switch m.Type {
	case "hello":
		return Hello{ClientID: m.ClientID, ConnID: m.ConnID}
	case "close":
		ended := c.out.ended(m.SessionID)
		if lost.take(m.SessionID) && !ended {
			return nil // has been told of
		}
		return Closed{SessionID: m.SessionID}
	case "rtc":
		switch m.Signal.Type {
		case wire.SignalSDP:
			return Description{Ref: ref, Data: m.Signal.Data}
		case wire.SignalICE:
			return Candidate{Ref: ref, Data: m.Signal.Data}
		}
	case "vad":
		switch m.Signal.Type {
		case wire.SignalVoiceOn:
			return Voice{Ref: ref, On: true}
		case wire.SignalVoiceOff:
			return Voice{Ref: ref}
		}
	case wire.TypeError:
		if c.client.cfg.V2 {
			return ErrorEvent{CallID: m.Error.CallID, SessionID: m.Error.SessionID, Reason: m.Error.Reason}
		}
	case wire.TypeStats:
		if c.client.cfg.V2 {
			s := m.Stats
			return StatsEvent{CallID: s.CallID, Participants: s.Participants, Publishers: s.Publishers, Subscribers: s.Subscribers}
		}
	}
	c.drop("type", m.Type, "signal", int(m.Signal.Type))
	return nil
}

// drop counts a message that makes no sense. A server that sends many does not fill the log:
// only one in a while is written, with the count.
func (c *Conn) drop(about ...any) {
	n := c.dropped.Add(1)
	if now := time.Now(); now.Sub(c.dropLogged) >= dropLogEvery {
		c.dropLogged = now
		c.client.log.Warn("message from rtcd dropped", append(about, "dropped", n)...)
	}
}

// emit hands an event to the consumer and waits for it if it has to. It reports false if the
// Conn ended first.
func (c *Conn) emit(ev Event) bool {
	select {
	case c.events <- ev:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// tell hands an event to the consumer if there is room for it.
func (c *Conn) tell(ev Event) {
	select {
	case c.events <- ev:
	default:
	}
}

// open makes one attempt to open the WebSocket. A token the server does not take is replaced, a
// client it does not know is registered if that is wanted; then it is tried once more.
func (c *Client) open(ctx context.Context) (*websocket.Conn, error) {
	ws, token, err := c.dial(ctx)
	if !errors.Is(err, ErrUnauthorized) {
		return ws, err
	}
	if c.forget(token) {
		if _, err = c.Login(ctx); err == nil {
			ws, _, err = c.dial(ctx)
		}
		if !errors.Is(err, ErrUnauthorized) {
			return ws, err
		}
	}
	if !c.cfg.AutoRegister || c.cfg.AuthKey == "" {
		return nil, err
	}
	switch rerr := c.Register(ctx); {
	case errors.Is(rerr, ErrAlreadyRegistered): // with another key
		return nil, err
	case rerr != nil:
		return nil, rerr
	}
	c.log.Info("registered with rtcd", "clientID", c.cfg.ClientID)
	ws, _, err = c.dial(ctx)
	return ws, err
}

// ticketProtocol precedes a ticket in the list of subprotocols, where it is in no URL that is logged.
const ticketProtocol = "rtcd.ticket."

// credentials returns what an upgrade shows the server: a header, and subprotocols.
func (c *Client) credentials(ctx context.Context) (header http.Header, protocols []string, token string, err error) {
	if c.cfg.V2 {
		protocols = append(protocols, wire.SubprotocolV2)
	}
	if c.cfg.Ticket == nil {
		var auth string
		auth, token, err = c.authorization(ctx)
		return http.Header{"Authorization": {auth}}, protocols, token, err
	}
	ticket, err := c.cfg.Ticket(ctx)
	switch {
	case err != nil:
		return nil, nil, "", fmt.Errorf("get ticket: %w", err)
	case !ticketSafe(ticket):
		return nil, nil, "", errors.New("get ticket: not usable")
	}
	return nil, append(protocols, ticketProtocol+ticket), "", nil
}

// dial opens a WebSocket with the client's credentials, and returns the token it used, if any.
func (c *Client) dial(ctx context.Context) (ws *websocket.Conn, token string, err error) {
	header, protocols, token, err := c.credentials(ctx)
	if err != nil {
		return nil, "", err
	}
	u, err := url.Parse(c.endpoint("/ws"))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", opConnect, err)
	}
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	var abort func() bool // undoes what closes the socket when ctx ends; gorilla does not
	dialer := websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		TLSClientConfig:  c.cfg.TLS.Clone(),
		HandshakeTimeout: handshakeTimeout,
		Subprotocols:     protocols,
		NetDialContext: func(dialCtx context.Context, network, addr string) (net.Conn, error) {
			conn, err := c.cfg.DialContext(dialCtx, network, addr)
			if err == nil {
				abort = context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
	}
	ws, resp, err := dialer.DialContext(ctx, u.String(), header)
	if abort != nil && !abort() {
		if err == nil {
			_ = ws.Close()
		}
		return nil, token, fmt.Errorf("%s: %w", opConnect, context.Cause(ctx))
	}
	if err == nil {
		return ws, token, nil
	}
	if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what came is better than nothing
		return nil, token, apiError(opConnect, resp, body)
	}
	return nil, token, fmt.Errorf("%s: %w", opConnect, err)
}
