package rtc_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// told is what CallChanged said, and when.
type told struct {
	mu   sync.Mutex
	last map[string]rtc.CallInfo
	at   map[string][]time.Time
}

func (c *told) add(_ string, info rtc.CallInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last, c.at = make(map[string]rtc.CallInfo), make(map[string][]time.Time)
	}
	c.last[info.CallID] = info
	c.at[info.CallID] = append(c.at[info.CallID], time.Now())
}

func (c *told) of(call string) (rtc.CallInfo, []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[call], c.at[call]
}

// sameCounts compares what two say.
func sameCounts(a, b rtc.CallInfo) bool {
	if len(a.Streams) != len(b.Streams) {
		return false
	}
	for i := range a.Streams {
		if a.Streams[i] != b.Streams[i] {
			return false
		}
	}
	return a.Participants == b.Participants && a.Publishers == b.Publishers && a.Subscribers == b.Subscribers
}

// TestCounts (TK-20): what is going on in a call is told right within a second of a join, of a stream
// that comes and goes, of a mute, and of an endpoint that was cut off; and not more than once a second.
func TestCounts(t *testing.T) {
	var changed told
	inRoom(t, func(c *rtc.Config) { c.CallChanged = changed.add }, func(r *room) {
		want := func(what string, participants, publishers, subscribers int, streams ...int) {
			t.Helper()
			r.wait(time.Second + 10*time.Millisecond)
			info, at := changed.of("call")
			if info.Participants != participants || info.Publishers != publishers || info.Subscribers != subscribers || len(info.Streams) != len(streams) {
				t.Errorf("%s: told %+v, want %d, %d, %d and %d streams", what, info, participants, publishers, subscribers, len(streams))
				return
			}
			for i, n := range streams {
				if info.Streams[i].Subscribers != n {
					t.Errorf("%s: stream %+v, want %d subscribers", what, info.Streams[i], n)
				}
			}
			if now, _ := r.backend.Server.Call("g", "call"); participants > 0 && !sameCounts(now, info) {
				t.Errorf("%s: told %+v, asked %+v", what, info, now)
			}
			for i := range at[1:] {
				if d := at[i+1].Sub(at[i]); d < time.Second {
					t.Errorf("%s: told again after %v", what, d)
				}
			}
		}
		a, b := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("b", false, rtctest.EndpointConfig{})
		want("two came", 2, 0, 2)
		r.publishVoice(a).set(30, 0)
		r.wait(100 * time.Millisecond) // until it is negotiated
		want("a voice", 2, 1, 1, 1)
		b.videoOn("cam")
		b.shows(rtctest.CameraConfig{StreamID: "cam", Source: "b"})
		c := r.enter("c", false, rtctest.EndpointConfig{})
		r.wait(100 * time.Millisecond)
		want("a camera, and another one", 3, 2, 1, 2, 2)
		r.must(r.backend.Server.Mute("g", "call", "a"))
		want("muted", 3, 2, 1, 2, 2)
		if info, _ := changed.of("call"); !info.Streams[0].Muted || info.Streams[1].Muted {
			t.Errorf("muted streams: %+v", info.Streams)
		}
		r.must(r.backend.Server.Unpublish("g", "call", r.streamOf("b", "video"), false))
		want("the camera was taken away", 3, 1, 2, 2)
		// Cut off, it is given up after a while, and that is told within a second.
		c.link.Set(rtctest.Impairment{Loss: 1})
		if err := r.backend.Await(r.ctx, "c", func(events []rtc.Event) bool {
			return len(events) > 0 && events[len(events)-1].Kind == rtc.Closed
		}); err != nil {
			t.Fatal(err)
		}
		want("one was cut off", 2, 1, 1, 1)
		a.leaves()
		b.leaves()
		want("all have left", 0, 0, 0)
		n := len(func() []time.Time { _, at := changed.of("call"); return at }())
		r.wait(time.Minute)
		if _, at := changed.of("call"); len(at) != n {
			t.Errorf("told %d times more of a call that is over", len(at)-n)
		}
	})
}

// TestChangesAreMerged (TK-20): of many changes of one call the first and the last are told, a second
// apart; calls do not wait for each other, and what is left at the end is told then.
func TestChangesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve := rtctest.NewNetwork(t).Serve(t)
		var changed told
		b := rtctest.NewBackend(t, func(c *rtc.Config) { serve(c); c.CallChanged = changed.add })
		for i := range 100 {
			enter(t, b.Server, "busy", string(rune('A'+i)), rtc.Grant{})
			synctest.Wait()
		}
		time.Sleep(500 * time.Millisecond)
		enter(t, b.Server, "other", "other", rtc.Grant{})
		synctest.Wait()
		if info, at := changed.of("other"); info.Participants != 1 || len(at) != 1 {
			t.Errorf("another call was told of %d times: %+v", len(at), info)
		}
		if info, at := changed.of("busy"); len(at) != 1 || info.Participants != 1 {
			t.Errorf("a call that changes was told of %d times: %+v", len(at), info)
		}
		time.Sleep(501 * time.Millisecond)
		if info, at := changed.of("busy"); len(at) != 2 || info.Participants != 100 {
			t.Errorf("a second later it was told of %d times: %+v", len(at), info)
		}
		if err := b.Server.Close(); err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{"busy", "other"} {
			if info, at := changed.of(call); info.Participants != 0 || len(at) > 3 {
				t.Errorf("%s after the end: told %d times, last %+v", call, len(at), info)
			}
		}
	})
}
