package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"rtcd/service/feed"
	"rtcd/service/metrics"
)

// A Feed has the events of the calls of clients; *feed.Feed is one.
type Feed interface {
	// Read returns a page of events. A cursor that is none of its own gives feed.ErrCursor.
	Read(clientID string, q feed.Query) (feed.Page, error)
	// Changed returns a channel that is closed when there is something new for the client.
	Changed(clientID string) <-chan struct{}
	// Over is closed when streams are to take what is left, and end.
	Over() <-chan struct{}
}

// LimitEventStreams is hit by a client that opens more streams of events than it may.
const LimitEventStreams metrics.Limit = "event_streams_per_client"

// Of streams of events.
const (
	maxStreams    = 8 // of a client at a time
	streamPage    = 100
	heartbeat     = 15 * time.Second
	checkEvery    = time.Second      // that the credentials are still good
	takeTime      = 10 * time.Second // for the peer to take what was written
	lastTime      = time.Second      // the same, once the server ends
	streamLife    = time.Hour        // then the peer comes again, with credentials that are good then
	retryHint     = "retry: 2000\n\n"
	eventStream   = "text/event-stream"
	lastEventID   = "Last-Event-ID"
	reasonBadNext = "bad_cursor"
)

var errStreams = errors.New("too many streams of events are open")

// streams counts the streams of clients.
type streams struct {
	mu   sync.Mutex
	open map[string]int
}

// begin counts one more, if the client may have it.
func (s *streams) begin(clientID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[clientID] >= maxStreams {
		return false
	}
	if s.open == nil {
		s.open = make(map[string]int)
	}
	s.open[clientID]++
	return true
}

func (s *streams) end(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[clientID]--; s.open[clientID] == 0 {
		delete(s.open, clientID)
	}
}

// readEvents serves GET /events.
func (x *exchange) readEvents() {
	values, ok := x.query("after", "call", "limit", "wait")
	if !ok {
		return
	}
	q := feed.Query{After: values.Get("after"), Call: values.Get("call")}
	bad := func(name, want string) {
		x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, "parameter \"" + name + "\" is not " + want})
	}
	switch {
	case values.Has("call") && !validID(q.Call):
		bad("call", "an id")
		return
	case values.Has("wait") && values.Get("wait") != "0":
		bad("wait", "0")
		return
	}
	if q.Limit, ok = x.limit(values); !ok {
		return
	}
	x.callID = q.Call
	page := values.Has("wait") || strings.Contains(x.r.Header.Get("Accept"), "application/json")
	if id := x.r.Header.Get(lastEventID); id != "" && !page {
		q.After = id // where a stream goes on, whatever it began with
	}
	first, err := x.h.Feed.Read(x.p.ClientID, q)
	switch {
	case errors.Is(err, feed.ErrCursor):
		x.refuse(problem{http.StatusBadRequest, reasonBadNext, "the cursor is not one of an event"})
	case err != nil:
		x.fail(err)
	case page:
		x.writePage(first)
	default:
		x.streamEvents(q, first)
	}
}

// writePage answers with one page.
func (x *exchange) writePage(p feed.Page) {
	events := make([]json.RawMessage, len(p.Items))
	for i := range p.Items {
		events[i] = p.Items[i].Data
	}
	x.secret()
	x.write(http.StatusOK, struct {
		Events []json.RawMessage `json:"events"`
		Next   string            `json:"next"`
		More   bool              `json:"more"`
	}{events, p.Next, p.More})
}

// streamEvents answers with server-sent events (HTML standard, section 9.2) until the peer is gone or does
// not take them, its credentials are not good any more, or the server ends.
func (x *exchange) streamEvents(q feed.Query, first feed.Page) {
	if !x.h.streams.begin(x.p.ClientID) {
		x.h.Metrics.LimitHit(LimitEventStreams)
		x.fail(Refuse(http.StatusTooManyRequests, "limit_"+string(LimitEventStreams), errStreams))
		return
	}
	defer x.h.streams.end(x.p.ClientID)
	s := eventWriter{w: x.w, control: http.NewResponseController(x.w)}
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		x.fail(err) // no connection of our listener
		return
	}
	x.secret()
	x.w.Header().Set("Content-Type", eventStream)
	x.w.Header().Set("X-Accel-Buffering", "no") // of a proxy in front of us
	x.w.WriteHeader(http.StatusOK)
	if s.write([]byte(retryHint)) != nil {
		return
	}
	unhook := s.hurry(x.h.Feed.Over())
	defer unhook()
	x.follow(&s, q, first)
}

// follow writes page after page.
func (x *exchange) follow(s *eventWriter, q feed.Query, p feed.Page) {
	ctx, cancel := context.WithTimeout(x.r.Context(), streamLife)
	defer cancel()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	q.Limit = streamPage
	for {
		if !x.current() || s.events(p, time.Now()) != nil {
			return
		}
		q.After = p.Next
		changed := x.h.Feed.Changed(x.p.ClientID)
		next, err := x.h.Feed.Read(x.p.ClientID, q)
		if err != nil {
			x.h.log.Error("stream of events failed", "clientID", x.p.ClientID, "err", err)
			return
		}
		if p = next; len(p.Items) > 0 || p.More {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case <-changed:
		case <-check.C:
		case <-ctx.Done():
			return
		case <-x.h.Feed.Over():
			select {
			case <-changed:
			default:
				return
			}
		}
	}
}

// current reports whether the credentials that the request came with are still good for it.
func (x *exchange) current() bool {
	return x.h.Current == nil || x.h.Current(x.p, x.route.key())
}

// An eventWriter writes server-sent events to a peer that may be slow.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buf     []byte
	last    time.Time

	mu    sync.Mutex
	until time.Time // no write lasts longer, once the server ends
}

// events writes a page; without events in it, a comment when there was nothing for long.
func (s *eventWriter) events(p feed.Page, now time.Time) error {
	s.buf = s.buf[:0]
	for _, i := range p.Items {
		s.buf = append(s.buf, "id: "...)
		s.buf = append(s.buf, i.ID...)
		s.buf = append(s.buf, "\ndata: "...)
		s.buf = append(s.buf, i.Data...)
		s.buf = append(s.buf, "\n\n"...)
	}
	if len(s.buf) == 0 {
		if now.Sub(s.last) < heartbeat {
			return nil
		}
		s.buf = append(s.buf, ":\n\n"...)
	}
	return s.write(s.buf)
}

func (s *eventWriter) write(data []byte) error {
	now := time.Now()
	s.mu.Lock()
	deadline := now.Add(takeTime)
	if !s.until.IsZero() && s.until.Before(deadline) {
		deadline = s.until
	}
	err := s.control.SetWriteDeadline(deadline)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.last = now
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.control.Flush()
}

// hurry bounds what is written after over is closed, also what is being written then. What it returns
// ends it.
func (s *eventWriter) hurry(over <-chan struct{}) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-over:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.until = time.Now().Add(lastTime)
			_ = s.control.SetWriteDeadline(s.until) // the write finds out
		case <-quit:
		}
	}()
	return func() { close(quit); <-done }
}
