//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
	"rtcd/client"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/rtctest"
)

var caps = scenario{
	id: "F29", title: "candidates, data channels, sections, RIDs and messages at their limits and beyond",
	criterion: "what is at the limit is taken, what is beyond it is not, and is counted; calls beside it lose nothing",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts("atk")...)
		if err != nil {
			return err
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) {
			// A lite agent has no use for candidates, and takes none.
			c.Config = append(c.Config, `rtc.ice_lite = "off"`)
		}, nil)
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		c := &capper{t: t, p: p, host: f.Host("atk")}
		for _, probe := range []func(context.Context) error{c.candidates, c.channels, c.messages, c.sections, c.rids, c.sizes} {
			if err := probe(ctx); err != nil {
				return err
			}
		}
		w.OnlyCalls()
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.unbroken(figures)
		t.lossless(figures, 0)
		return t.leaveIdle(ctx, p)
	},
}

// capper tries limits out.
type capper struct {
	t    *trial
	p    *load.Party
	host *field.Namespace
	n    int
}

// person makes somebody who has joined a call of their own.
func (c *capper) person(change func(*rtctest.EndpointConfig)) (*load.Person, error) {
	c.n++
	return load.NewPerson(c.p.Backends[0], c.host, "caps", fmt.Sprintf("cap-%d", c.n), change)
}

func (c *capper) hits(ctx context.Context, limit string) (int, error) {
	m, err := c.p.Server.Metrics(ctx)
	return int(m[fmt.Sprintf("rtcd_limit_hits_total{limit=%q}", limit)]), err
}

// hit waits until a limit was hit so often since there were so many hits, and a moment longer.
func (c *capper) hit(ctx context.Context, limit string, before, want int) error {
	c.t.result.Count++
	got := 0
	for end := time.Now().Add(10 * time.Second); ; {
		n, err := c.hits(ctx, limit)
		if err != nil {
			return err
		}
		if got = n - before; got >= want && want > 0 || time.Now().After(end) {
			break
		}
		if want == 0 && time.Now().After(end.Add(-9*time.Second)) {
			break
		}
		if err := c.t.wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	c.t.expect(got == want, "%s: %d hits, want %d", limit, got, want)
	return nil
}

// candidates: of the 33rd on, none is used.
func (c *capper) candidates(ctx context.Context) error {
	const most = 32
	var told atomic.Int64
	q, err := c.person(func(cfg *rtctest.EndpointConfig) {
		send := cfg.Send
		cfg.Send = func(typ wire.SignalType, data []byte) {
			if typ == wire.SignalICE {
				told.Add(1)
			}
			send(typ, data)
		}
	})
	if err != nil {
		return err
	}
	defer func() { _ = q.Leave() }()
	if err := q.Connect(ctx); err != nil {
		return err
	}
	before, err := c.hits(ctx, "remote_candidates")
	if err != nil {
		return err
	}
	tell := func(from, to int) error {
		for i := from; i < to; i++ {
			data, err := wire.MarshalCandidate(wire.Candidate{
				Candidate: fmt.Sprintf("candidate:%d 1 udp 1 %s %d typ host", i, c.host.Addr, 20_000+i), SDPMid: new(string),
			})
			if err != nil {
				return err
			}
			if err := q.Backend.Conn.SendSignal(q.Name, wire.SignalICE, data); err != nil {
				return err
			}
		}
		return q.Backend.Conn.Flush(ctx)
	}
	if err := tell(int(told.Load()), most); err != nil {
		return err
	}
	if err := c.hit(ctx, "remote_candidates", before, 0); err != nil {
		return err
	}
	if err := tell(most, 1000); err != nil {
		return err
	}
	return c.hit(ctx, "remote_candidates", before, 1000-most)
}

// channels: the second one and all after it are closed.
func (c *capper) channels(ctx context.Context) error {
	q, err := c.person(nil)
	if err != nil {
		return err
	}
	defer func() { _ = q.Leave() }()
	if err := q.Connect(ctx); err != nil {
		return err
	}
	before, err := c.hits(ctx, "data_channels")
	if err != nil {
		return err
	}
	n := c.t.of(200, 2000)
	for i := range n {
		if _, err := q.Endpoint().PC().CreateDataChannel(fmt.Sprint("more-", i), nil); err != nil {
			return err
		}
	}
	return c.hit(ctx, "data_channels", before, n)
}

// messages: 200 on the data channel at once are taken, the next ones wait.
func (c *capper) messages(ctx context.Context) error {
	q, err := c.person(nil)
	if err != nil {
		return err
	}
	defer func() { _ = q.Leave() }()
	if err := q.Connect(ctx); err != nil {
		return err
	}
	if err := c.t.wait(ctx, 5*time.Second); err != nil { // the bucket is full again
		return err
	}
	before, err := c.hits(ctx, "data_channel_rate")
	if err != nil {
		return err
	}
	for range 195 { // the endpoint may say something, too
		if err := q.Endpoint().Channel(channel.AppendPing(nil)); err != nil {
			return err
		}
	}
	if err := c.hit(ctx, "data_channel_rate", before, 0); err != nil {
		return err
	}
	for range 400 {
		if err := q.Endpoint().Channel(channel.AppendPing(nil)); err != nil {
			return err
		}
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		now, err := c.hits(ctx, "data_channel_rate")
		if err != nil || now > before {
			c.t.result.Count++
			return err
		}
		if err := c.t.wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	c.t.shortfall("data_channel_rate: no hit")
	return nil
}

// section is one more of a description that says nothing of its own.
const section = "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=inactive\r\n"

// sections: an offer with more than 1,024 is refused, and nobody else has less of it.
func (c *capper) sections(ctx context.Context) error {
	return c.refused(ctx, "an offer of 1,100 sections", func(sdp string) string { return sdp + strings.Repeat(section, 1100) })
}

// rids: an offer of 64 of them makes no more than a few layers.
func (c *capper) rids(ctx context.Context) error {
	var b strings.Builder
	b.WriteString("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=mid:7\r\na=sendonly\r\n")
	var ids []string
	for i := range 64 {
		ids = append(ids, fmt.Sprint("r", i))
		fmt.Fprintf(&b, "a=rid:r%d send\r\n", i)
	}
	b.WriteString("a=simulcast:send " + strings.Join(ids, ";") + "\r\n")
	return c.refused(ctx, "an offer of 64 RIDs", func(sdp string) string { return sdp + b.String() })
}

// refused sends an offer, and looks whether the server lives and the memory does not grow by much.
func (c *capper) refused(ctx context.Context, what string, change func(string) string) error {
	sdp, err := load.OfferOf(c.host)
	if err != nil {
		return err
	}
	q, err := c.person(nil)
	if err != nil {
		return err
	}
	defer func() { _ = q.Leave() }()
	before, err := c.p.Server.Collected(ctx)
	if err != nil {
		return err
	}
	for range 10 {
		if err := q.Backend.Conn.SendDescription(q.Name, client.SDP{Type: "offer", SDP: change(sdp)}); err != nil {
			return err
		}
	}
	if err := q.Backend.Conn.Flush(ctx); err != nil {
		return err
	}
	if err := c.t.wait(ctx, 2*time.Second); err != nil {
		return err
	}
	after, err := c.p.Server.Collected(ctx)
	if err != nil {
		return err
	}
	c.t.result.Count++
	grown := after.Heap - before.Heap
	c.t.say("%s, 10 times: heap %+d KiB", what, grown>>10)
	c.t.expect(grown <= 4<<20, "%s makes the heap grow by %d KiB", what, grown>>10)
	return nil
}

// sizes: a WebSocket message of the largest size is read, one byte more ends the connection.
func (c *capper) sizes(ctx context.Context) error {
	r := registration{"sizes", strings.Repeat("s", 40)}
	plain, err := plainClient(c.p.Server, c.host, r)
	if err != nil {
		return err
	}
	if err := plain.Register(ctx); err != nil {
		return err
	}
	plain.CloseIdleConnections()
	dialer := websocket.Dialer{NetDialContext: c.host.DialContext}
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte(r.id+":"+r.key))
	before, err := c.hits(ctx, "ws_message_bytes")
	if err != nil {
		return err
	}
	for size, want := range map[int]bool{1 << 20: true, 1<<20 + 1: false} {
		ws, _, err := dialer.DialContext(ctx, "ws://"+c.p.Server.API().String()+"/ws", http.Header{"Authorization": {auth}})
		if err != nil {
			return err
		}
		open := c.survives(ctx, ws, size)
		_ = ws.Close()
		c.t.result.Count++
		c.t.expect(open == want, "a WebSocket message of %d bytes: the connection stays: %t, want %t", size, open, want)
	}
	return c.hit(ctx, "ws_message_bytes", before, 1)
}

// survives sends a message of no meaning and a join, and reports whether the join was heard.
func (c *capper) survives(ctx context.Context, ws *websocket.Conn, size int) bool {
	b := make([]byte, size)
	b[0] = 0xc1 // what msgpack never uses
	if ws.WriteMessage(websocket.BinaryMessage, b) != nil {
		return false
	}
	for _, m := range [][]byte{
		wire.AppendJoin(nil, wire.Join{CallID: "c", UserID: "u", SessionID: "large"}), wire.AppendLeave(nil, "large"),
	} {
		if ws.WriteMessage(websocket.BinaryMessage, m) != nil {
			return false
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = ws.Close() })
	defer stop()
	_ = ws.SetReadDeadline(time.Now().Add(5 * time.Second))
	for { // hello, and the end of the session
		_, m, err := ws.ReadMessage()
		if err != nil {
			return false
		}
		if strings.Contains(string(m), "large") {
			return true
		}
	}
}
