package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// A CallEvent is something that took place in a call, as a stream of events or a webhook tells it. Types
// and fields are described in docs/events.md; of a type that this package does not know all is in Raw.
type CallEvent struct {
	ID        string    `json:"id"` // where to go on; of two events the later has the larger
	Type      string    `json:"type"`
	Time      time.Time `json:"time"`
	CallID    string    `json:"callID"`
	Instance  string    `json:"instance"` // tells calls of one id apart
	CallSeq   uint64    `json:"callSeq"`  // in the instance: 1, 2, 3, without gaps
	SessionID string    `json:"sessionID"`
	UserID    string    `json:"userID"`
	StreamID  string    `json:"streamID"`
	Source    string    `json:"source"`
	Codec     string    `json:"codec"`
	Role      string    `json:"role"`
	Path      string    `json:"path"`
	Action    string    `json:"action"`
	Reason    string    `json:"reason"`
	Missed    uint64    `json:"missed"`

	Raw json.RawMessage `json:"-"` // of a stream: the event as it came
}

// EventGap is the type of an event that stands for events that are missing. CallEvent.Missed says how
// many, if that is known.
const EventGap = "gap"

const (
	opEvents     = "read events"
	maxEventLine = 1 << 20
	quietTime    = 45 * time.Second // the server says something each 15
)

// errQuiet is why a stream is opened again that says nothing.
var errQuiet = errors.New("nothing came for too long")

// Events returns the events of the client's calls that come after a cursor, and goes on with those to come.
// The cursor is the ID of an event that was dealt with; "" begins with the oldest that is kept, "now" with
// the next to come. A stream that breaks is opened again where it broke, for as long as it takes, or for
// Config.GiveUpAfter.
//
// The sequence ends with an error and only so: that of ctx, or of a server that refuses the client or the
// cursor. Whoever stops taking events ends the stream.
func (c *Client) Events(ctx context.Context, after string) iter.Seq2[CallEvent, error] {
	return func(yield func(CallEvent, error) bool) {
		began := time.Now()
		failures := 0
		for {
			stop := false
			n := 0
			err := c.stream(ctx, after, func(e CallEvent) bool {
				after, n = e.ID, n+1
				stop = !yield(e, nil)
				return !stop
			})
			if stop {
				return
			}
			if n > 0 || err == nil { // the server ends a stream once in a while
				began, failures = time.Now(), 0
			}
			if final := c.finalOf(ctx, err, began); final != nil {
				yield(CallEvent{}, final)
				return
			}
			c.log.Debug("stream of events ended", "attempt", failures, "err", err)
			timer := time.NewTimer(c.pause(err, failures))
			failures++
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				yield(CallEvent{}, context.Cause(ctx))
				return
			}
		}
	}
}

// pause is how long to wait before a stream is opened again.
func (c *Client) pause(err error, failures int) time.Duration {
	d := backoff(c.cfg.MinBackoff, c.cfg.MaxBackoff, failures, rand.Float64())
	var refusal *APIError
	if errors.As(err, &refusal) {
		d = max(d, min(refusal.RetryAfter, c.cfg.MaxBackoff))
	}
	return d
}

// finalOf returns the error to end with, or nil if it is worth trying again.
func (c *Client) finalOf(ctx context.Context, err error, began time.Time) error {
	var refusal *APIError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refusal) && refusal.Status >= 400 && refusal.Status <= 499 && !errors.Is(err, ErrUnavailable):
		return err
	case err != nil && c.cfg.GiveUpAfter > 0 && time.Since(began) > c.cfg.GiveUpAfter:
		return fmt.Errorf("read events again, for %v: %w", c.cfg.GiveUpAfter, err)
	}
	return nil
}

// stream reads one stream until it ends, which is no error, or take does not want more.
func (c *Client) stream(ctx context.Context, after string, take func(CallEvent) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(quietTime, func() { cancel(errQuiet) })
	defer quiet.Stop()
	resp, err := c.openStream(ctx, after)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxEventLine)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok { // of no interest: the id is in the data, a retry is ours to choose
			quiet.Reset(quietTime)
			continue
		}
		var e CallEvent
		if err := json.Unmarshal(data, &e); err != nil || e.ID == "" {
			return fmt.Errorf("%s: not an event: %w", opEvents, err)
		}
		e.Raw = bytes.Clone(data)
		quiet.Stop() // the event may take long to deal with
		if !take(e) {
			return nil
		}
		quiet.Reset(quietTime)
	}
	if errors.Is(context.Cause(ctx), errQuiet) {
		return errQuiet
	}
	return lines.Err()
}

// openStream opens a stream. A refused token is replaced once.
func (c *Client) openStream(ctx context.Context, after string) (*http.Response, error) {
	header, token, err := c.authorization(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := c.askStream(ctx, after, header)
	if !errors.Is(err, ErrUnauthorized) || !c.forget(token) {
		return resp, err
	}
	if token, err = c.Login(ctx); err != nil {
		return nil, err
	}
	return c.askStream(ctx, after, "Bearer "+token)
}

func (c *Client) askStream(ctx context.Context, after, header string) (*http.Response, error) {
	path := "/events"
	if after != "" {
		path += "?after=" + url.QueryEscape(after)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint(path), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opEvents, err)
	}
	req.Header.Set("Authorization", header)
	req.Header.Set("Accept", "text/event-stream")
	unbounded := *c.http // the time of a request is bounded, that of a stream is not
	unbounded.Timeout = 0
	resp, err := unbounded.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opEvents, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		return nil, refused(opEvents, resp)
	}
	return resp, nil
}
