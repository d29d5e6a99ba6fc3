package service_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// every does something so many times each 20 ms, for so many times 20 ms.
func every(ticks, atOnce int, do func(n uint32)) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := range uint32(ticks * atOnce) {
		do(n)
		if n%uint32(atOnce) == uint32(atOnce)-1 {
			<-tick.C
		}
	}
}

// TestTenantsShare shows with real sockets that a client which loads the server ten times as much as
// another one, with media, messages, requests, joins and tickets, costs that one less than 0.1 % of its
// packets of audio: with all limits at their default, and with a limit to its bit rate, which holds.
func TestTenantsShare(t *testing.T) {
	const (
		ticks = 150      // 3 s
		voice = 8 * 6800 // bit/s of one voice: 50 packets of up to 136 bytes
		first = 10_000   // number of the first packet that counts
	)
	for name, bitrate := range map[string]int{"default limits": 0, "bitrate_per_client": 4 * voice} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, 90*time.Second)
			s := start(t, nil, func(c *config.Config) { c.RTC.Limits.BitratePerClient = bitrate })
			quietly, loudly := s.registered(t, "quiet"), s.registered(t, "loud")
			quiet := people(ctx, t, quietly.dial("quiet", key, false), "call", "s1", "s2")
			loud := people(ctx, t, loudly.dial("loud", key, false), "call", "s1", "s2")
			for _, all := range []map[string]*rtctest.Endpoint{quiet, loud} { // until all is negotiated
				stop := rtctest.Talk(t, all)
				more(ctx, t, all["s1"], "s2", 5)
				more(ctx, t, all["s2"], "s1", 5)
				stop()
			}
			flood := raw(t, s, "loud")
			go func() { // what it is told
				for {
					if _, _, err := flood.ReadMessage(); err != nil {
						return
					}
				}
			}()
			send := func(all map[string]*rtctest.Endpoint, from uint32) func(uint32) {
				return func(n uint32) {
					for who, e := range all {
						if err := e.SendVoice(who, from+n, 30); err != nil {
							t.Errorf("%s: %v", who, err)
						}
					}
				}
			}
			var load sync.WaitGroup
			var answered atomic.Int32
			load.Go(func() { every(ticks, 1, send(quiet, first)) })
			load.Go(func() { every(ticks, 10, send(loud, first)) })
			load.Go(func() {
				every(ticks, 10, func(n uint32) {
					session := fmt.Sprint("none", n)
					for _, m := range [][]byte{
						wire.AppendRTC(nil, wire.Signal{SessionID: "s1", Type: wire.SignalUnmute}),
						wire.AppendJoin(nil, wire.Join{CallID: "other", UserID: "u", SessionID: session, Token: "rtcdjt_x"}),
						wire.AppendLeave(nil, session),
					} {
						if err := flood.WriteMessage(websocket.BinaryMessage, m); err != nil {
							t.Errorf("send: %v", err)
							return
						}
					}
				})
			})
			for _, ask := range []func() (reply, error){
				func() (reply, error) { return loudly.try("GET", "/calls/call", "") },
				func() (reply, error) { return loudly.try("POST", "/ws/tickets", "") },
			} {
				load.Go(func() {
					every(ticks, 1, func(uint32) {
						if _, err := ask(); err == nil {
							answered.Add(1)
						}
					})
				})
			}
			load.Wait()
			last, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			missing := 0
			for e, other := range map[*rtctest.Endpoint]string{quiet["s1"]: "s2", quiet["s2"]: "s1"} {
				_ = e.Await(last, func(heard func(string) rtctest.Heard) bool {
					h := heard(other).Numbers
					return h[len(h)-1] == first+ticks-1
				})
				came := make(map[uint32]bool)
				for _, n := range e.Heard(other).Numbers {
					came[n] = true
				}
				for n := range uint32(ticks) {
					if !came[first+n] {
						missing++
					}
				}
				if bad := e.Heard(other).Bad; bad > 0 {
					t.Errorf("%d packets were changed", bad)
				}
			}
			if missing*1000 >= 2*ticks {
				t.Errorf("%d of %d packets of the quiet client did not come", missing, 2*ticks)
			}
			if answered.Load() == 0 {
				t.Error("the loud client's requests came to nothing")
			}
			came := loud["s1"].Heard("s2").Packets + loud["s2"].Heard("s1").Packets
			_, text := request(t, "GET", s.url+"/metrics", "", "", "")
			const hits = `rtcd_limit_hits_total{limit="bitrate_per_client"} `
			limited := strings.Contains(text, hits) && !strings.Contains(text, hits+"0\n")
			switch {
			case bitrate == 0 && limited:
				t.Error("a limit that is not set was hit")
			case bitrate > 0 && (!limited || came > 10*2*ticks/2):
				t.Errorf("%d of %d packets of the loud client came, limited: %v", came, 10*2*ticks, limited)
			}
			t.Logf("of the loud client %d of %d packets came, %d requests were answered", came, 10*2*ticks, answered.Load())
		})
	}
}

// TestLimitsOfConfiguration shows for the limits of a client that as much as one says is taken and one more
// is refused by its name and counted, with real sockets; another client has its own.
func TestLimitsOfConfiguration(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	s := start(t, nil, func(c *config.Config) {
		c.API.Limits.WSConnectionsPerClient = 3
		c.RTC.Limits.CallsPerClient, c.RTC.Limits.SessionsPerCall, c.RTC.Limits.SessionsPerClient = 2, 3, 4
		c.RTC.Limits.JoinsPerSecond, c.RTC.Limits.JoinsBurst = 1, 10
	})
	for _, id := range []string{"c1", "c2"} {
		c := s.registered(t, id)
		r := c.dial(id, key, true)
		n := 0
		in := func(call string, participants int) {
			t.Helper()
			n++
			if err := r.Conn.Join(client.Join{CallID: call, UserID: "u", SessionID: fmt.Sprint("s", n)}); err != nil {
				t.Fatal(err)
			}
			eventually(ctx, t, "it is in", func() bool {
				r, err := c.try("GET", "/calls/"+call, "")
				return err == nil && r.status == 200 && c.callInfo(call).Participants == participants
			})
		}
		out := func(call, reason string) {
			t.Helper()
			n++
			turnedAway(ctx, t, r, reason, client.Join{CallID: call, UserID: "u", SessionID: fmt.Sprint("s", n)})
		}
		in("a", 1)
		in("b", 1)
		out("c", "limit_calls_per_client")
		in("a", 2)
		in("a", 3)
		out("a", "call_full")
		out("b", "limit_sessions_per_client")
		leave(ctx, t, r, "s2") // the only one of its call
		in("c", 1)
		// Who comes and goes all the time is within all of these.
		leave(ctx, t, r, "s1")
		limited := false
		for i := 0; i < 50 && !limited; i++ {
			session := fmt.Sprint("flood", i)
			if err := r.Conn.Join(client.Join{CallID: "a", UserID: "u", SessionID: session}); err != nil {
				t.Fatal(err)
			}
			leave(ctx, t, r, session)
			limited = slices.Contains(reasons(r, session), "limit_joins_per_second")
		}
		if !limited {
			t.Error("nobody was refused for too many joins")
		}
		for range 2 { // beside that of r
			raw(t, s, id)
		}
		if status := c.socket(nil, http.Header{"Authorization": {c.authorization}}); status == 101 || status == 0 {
			t.Errorf("one connection too many: %d", status)
		}
	}
	_, text := request(t, "GET", s.url+"/metrics", "", "", "")
	for _, limit := range []string{
		"calls_per_client", "sessions_per_call", "sessions_per_client", "joins_per_second", "ws_connections_per_client",
	} {
		if !strings.Contains(text, `rtcd_limit_hits_total{limit="`+limit+`"}`) {
			t.Errorf("%s was not counted", limit)
		}
	}
}
