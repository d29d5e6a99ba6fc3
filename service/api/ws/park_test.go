package ws_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
)

// away joins sessions and then takes the client's only connection away.
func (r *rig) away(t *testing.T, client string, sessions ...string) {
	t.Helper()
	b := r.dial(t, client)
	for _, s := range sessions {
		b.join(s)
		r.calls.await(t, "join "+client+"/"+s, 1)
	}
	_ = b.Close()
	eventually(t, "connection is gone", func() bool { return r.Connections(client) == 0 })
}

func (r *rig) vad(client, session string) {
	r.Send(client, session, ws.Outbound{Kind: ws.VAD, Signal: wire.Signal{SessionID: session, Type: 7}})
}

func (r *rig) end(client, session string) {
	r.Send(client, session, ws.Outbound{Kind: ws.Close})
}

// drain returns what a new connection of the client gets, until a marker for session comes.
func (r *rig) drain(t *testing.T, client string) (kinds []string) {
	t.Helper()
	b := r.dial(t, client)
	b.join("marker")
	r.calls.await(t, "join "+client+"/marker", 1)
	r.end(client, "marker")
	for {
		kind, m := b.read()
		if m["sessionID"] == "marker" {
			return kinds
		}
		if kind == "rtc" {
			kind = string(m["data"].([]byte))
		}
		kinds = append(kinds, kind)
	}
}

func TestParkedMessagesComeOnceInOrder(t *testing.T) {
	r := start(t, ws.Config{})
	r.away(t, "c1", "s1", "s2")
	for i := range 64 {
		r.rtc("c1", "s1", fmt.Sprint(i))
	}
	r.end("c1", "s1")
	r.rtc("c1", "s2", "other")
	got := r.drain(t, "c1")
	if len(got) != 66 {
		t.Fatalf("%d messages: %q, want 66", len(got), got)
	}
	n := 0
	for _, k := range got {
		switch k {
		case "other":
		case "close":
			if n != 64 {
				t.Errorf("close after %d messages, want it last", n)
			}
		default:
			if k != fmt.Sprint(n) {
				t.Errorf("got %q, want %d", k, n)
			}
			n++
		}
	}
	if n := r.Routes(); n != 1 {
		t.Errorf("%d routes, want that of s2", n)
	}
}

func TestParkedCaps(t *testing.T) {
	tests := []struct {
		name string
		cfg  ws.Config
		send func(r *rig)
		want string
	}{
		{"messages", ws.Config{ParkedMessages: 3}, func(r *rig) {
			for i := range 5 {
				r.rtc("c1", "s1", fmt.Sprint(i))
			}
			r.end("c1", "s1")
		}, "[0 1 2 close]"},
		{"voice activity goes first", ws.Config{ParkedMessages: 3}, func(r *rig) {
			r.vad("c1", "s1")
			for i := range 3 {
				r.rtc("c1", "s1", fmt.Sprint(i))
			}
		}, "[0 1 2]"},
		{"bytes", ws.Config{ParkedBytes: 300}, func(r *rig) {
			r.rtc("c1", "s1", "0")
			r.rtc("c1", "s1", fmt.Sprintf("%300d", 1))
			r.rtc("c1", "s1", "2")
			r.end("c1", "s1")
		}, "[0 2 close]"},
		{"messages of a client", ws.Config{ParkedClientMessages: 2}, func(r *rig) {
			r.rtc("c1", "s1", "0")
			r.rtc("c1", "s2", "1")
			r.rtc("c1", "s1", "2")
			r.rtc("c1", "s2", "3")
			r.end("c1", "s1")
			r.end("c1", "s2")
		}, "close close"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, tt.cfg)
			r.away(t, "c1", "s1", "s2")
			tt.send(r)
			got := r.drain(t, "c1")
			if tt.name == "messages of a client" { // sessions come in any order
				if len(got) != 4 {
					t.Errorf("got %q, want two messages and two closes", got)
				}
				return
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
}

func TestParkedExpiresButCloses(t *testing.T) {
	r := start(t, ws.Config{ParkedFor: 30 * time.Millisecond, MoveTimeout: 80 * time.Millisecond})
	r.away(t, "c1", "s1", "s2")
	r.rtc("c1", "s1", "old")
	r.end("c1", "s1")
	r.rtc("c1", "s2", "old")
	eventually(t, "parked messages expire", func() bool {
		return r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "parked_expired"}) == 2
	})
	r.rtc("c1", "s2", "new")
	if got := fmt.Sprint(r.drain(t, "c1")); got != "[close new]" && got != "[new close]" && got != "[close]" {
		t.Errorf("got %s, want the close and perhaps the new message", got)
	}
}

func TestRejoinedIDGetsNothingOfTheFormerSession(t *testing.T) {
	r := start(t, ws.Config{})
	r.away(t, "c1", "s1")
	r.rtc("c1", "s1", "stale")
	r.calls.Leave("c1", "s1")
	r.end("c1", "s1")
	b := r.dial(t, "c1")
	b.expect("s1", "stale")
	b.expectClose("s1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 2)
	r.rtc("c1", "s1", "fresh")
	b.expect("s1", "fresh")
}

func TestFloodIsSlowedNotDropped(t *testing.T) {
	r := start(t, ws.Config{InboundPerSecond: 1000, InboundBurst: 100, PingInterval: 20 * time.Millisecond, PongTimeout: 400 * time.Millisecond})
	flood, other := r.dial(t, "a"), r.dial(t, "b")
	flood.join("s1")
	other.join("s1")
	r.calls.await(t, "join a/s1", 1)
	r.calls.await(t, "join b/s1", 1)
	const n = 1500
	read := make(chan error, 1)
	go func() { // answers pings, behind the flood
		_, err := flood.readEnd()
		read <- err
	}()
	began := time.Now()
	flooded := make(chan error, 1)
	go func() {
		for range n {
			if err := flood.WriteMessage(websocket.BinaryMessage, message("rtc", rtcMap("s1", "x"))); err != nil {
				flooded <- err
				return
			}
		}
		flooded <- nil
	}()
	var worst time.Duration
	for i := range 50 {
		sent := time.Now()
		other.send("rtc", rtcMap("s1", "y"))
		r.calls.await(t, "signal b/s1", i+1)
		worst = max(worst, time.Since(sent))
	}
	if err := <-flooded; err != nil {
		t.Fatal(err)
	}
	r.calls.await(t, "signal a/s1", n)
	if took := time.Since(began); took < (n-100)*time.Millisecond*9/10 {
		t.Errorf("%d messages were handled in %v: no back-pressure", n, took)
	}
	if worst > 200*time.Millisecond {
		t.Errorf("the other tenant waited %v", worst)
	}
	if got := r.value(t, "rtcd_limit_hits_total", map[string]string{"limit": string(ws.LimitInboundRate)}); got == 0 {
		t.Error("no hit of the rate limit")
	}
	_ = flood.Close()
	<-read
}

// TestOrphans shows F12 of a backend that never returns: its client is told of once it has been without a
// connection for as long as is set, and not before. One that is connected, or has no session, is not.
func TestOrphans(t *testing.T) {
	const after = 500 * time.Millisecond
	orphaned := make(chan string, 100)
	r := start(t, ws.Config{
		MoveTimeout: 80 * time.Millisecond, OrphanedAfter: after, Orphaned: func(id string) { orphaned <- id },
	})
	stays := r.dial(t, "stays")
	stays.join("s1")
	r.calls.await(t, "join stays/s1", 1)
	_ = r.dial(t, "idle").Close()
	begin := time.Now()
	r.away(t, "gone", "s1")
	select {
	case id := <-orphaned:
		if id != "gone" {
			t.Errorf("%s is an orphan", id)
		}
		if d := time.Since(begin); d < after {
			t.Errorf("after %v, want %v", d, after)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody is told")
	}
	r.end("gone", "s1")
	select {
	case id := <-orphaned:
		if id != "gone" { // its close is parked
			t.Errorf("%s is an orphan", id)
		}
	case <-time.After(2 * after):
	}
}
