package ws_test

import (
	"math"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
)

// FuzzReceive shows WX-22 for the handlers of all messages: whatever comes, none panics, the
// connection stays, and no line of the log is longer than 1 KiB.
func FuzzReceive(f *testing.F) {
	for _, b := range [][]byte{
		wire.AppendJoin(nil, wire.Join{CallID: "c", UserID: "u", SessionID: "s", Token: "rtcdjt_x", Role: "king"}),
		wire.AppendLeave(nil, "s"), wire.AppendReconnect(nil, "s"),
		wire.AppendRTC(nil, wire.Signal{SessionID: "s", Type: wire.SignalSDP, Data: []byte("{}")}),
		wire.AppendModerate(nil, wire.Moderate{CallID: "c", Action: wire.ActionMuteAll, Except: []string{"s"}, Until: "x"}),
		wire.AppendError(nil, wire.Error{SessionID: "s", Reason: "x"}), {0xc1}, {0xa4, 'j', 'o', 'i', 'n', 0xc0}, nil,
	} {
		f.Add(b)
	}
	var outcome int
	r := start(f, ws.Config{QueueMessages: math.MaxInt32, QueueBytes: math.MaxInt32, Record: func(e ws.Event) {
		if e.Type != ws.EventOpen && e.Type != ws.EventClose { // which come from elsewhere
			outcome = e.Outcome
		}
	}})
	for _, id := range []string{"old", "v2"} {
		h := map[string][]string{}
		if id == "v2" {
			h["Sec-Websocket-Protocol"] = []string{wire.SubprotocolV2}
		}
		b, _, err := r.tryDial(id, h)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { _ = b.Close() })
		if _, _, err := b.ReadMessage(); err != nil { // the hello: now it is in the table
			f.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for err == nil { // until the end
				_, _, err = b.ReadMessage()
			}
		}()
		f.Cleanup(func() { _ = b.Close(); <-done })
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, id := range []string{"old", "v2"} {
			if id == "v2" && wire.Type(b) == "" {
				continue // 20 of those and it is closed
			}
			if _, err := wire.Decode(b); id == "v2" && err != nil {
				continue
			}
			if r.Receive(id, b); outcome == ws.OutcomeFault {
				t.Fatalf("%s: a handler panicked", id)
			}
		}
		r.logs.mu.Lock()
		defer r.logs.mu.Unlock()
		if r.logs.longest > 1<<10 {
			t.Fatalf("a line of %d bytes in the log", r.logs.longest)
		}
		r.calls.mu.Lock()
		defer r.calls.mu.Unlock()
		r.calls.events = nil
		clear(r.calls.live)
		clear(r.calls.signals)
	})
}
