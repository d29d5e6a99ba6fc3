package rtc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

func limitHits(t *testing.T, b *rtctest.Backend, l string) int {
	t.Helper()
	return int(metricOf(t, b.Metrics, "rtcd_limit_hits_total", l))
}

// endedFor waits until a session has ended and returns why.
func endedFor(t *testing.T, b *rtctest.Backend, session string) rtc.CloseReason {
	t.Helper()
	var why rtc.CloseReason
	err := b.Await(deadline(t, 10*time.Second), session, func(events []rtc.Event) bool {
		if len(events) == 0 || events[len(events)-1].Kind != rtc.Closed {
			return false
		}
		why = events[len(events)-1].Reason
		return true
	})
	if err != nil {
		t.Fatalf("%s: %v", session, err)
	}
	return why
}

// stick has the loop of a session do nothing until it is released.
func stick(b *rtctest.Backend, session string) (release func()) {
	stuck, on := make(chan struct{}), make(chan struct{})
	b.Server.Post("g", session, func() { close(stuck); <-on })
	<-stuck
	return func() { close(on) }
}

// As many messages as may wait for a session do; with one more it ends, and nobody else.
func TestSessionThatCannotKeepUpEnds(t *testing.T) {
	b := rtctest.NewBackend(t, nil)
	for _, name := range []string{"s0", "s1"} {
		if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "u", SessionID: name}); err != nil {
			t.Fatal(err)
		}
	}
	release := stick(b, "s0")
	for range rtc.MaxPosted {
		b.Server.Post("g", "s0", func() {})
	}
	if n := limitHits(t, b, string(rtc.LimitMailbox)); n != 0 {
		t.Errorf("%d messages hit the limit", rtc.MaxPosted)
	}
	b.Server.Post("g", "s0", func() { t.Error("a message beyond the limit was taken") })
	if n := limitHits(t, b, string(rtc.LimitMailbox)); n != 1 {
		t.Errorf("limit hit %d times, want once", n)
	}
	release()
	if why := endedFor(t, b, "s0"); why != rtc.CloseOverrun {
		t.Errorf("ended for %q", why)
	}
	if !b.Server.Exists("g", "s1") {
		t.Error("another session ended, too")
	}

	// The edge itself ends nothing.
	release = stick(b, "s1")
	ran, all := 0, make(chan struct{}) // counted by the loop alone
	for range rtc.MaxPosted - 1 {
		b.Server.Post("g", "s1", func() { ran++ })
	}
	b.Server.Post("g", "s1", func() { close(all) })
	release()
	<-all
	if ran != rtc.MaxPosted-1 {
		t.Errorf("%d messages were taken, want %d", ran, rtc.MaxPosted-1)
	}
	if !b.Server.Exists("g", "s1") || len(b.Events("s1")) != 0 {
		t.Errorf("a session with as many messages as may wait: %+v", b.Events("s1"))
	}
}

// An endpoint that takes nothing from its data channel is given up when more than 1 MiB waits for it.
func TestEndpointThatDoesNotReadEnds(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	n := rtctest.NewNetwork(t)
	b := rtctest.NewBackend(t, n.Serve(t))
	host, _, link := n.ImpairedHost(t)
	stalled := b.Join(t, "g", "call", "s0", rtctest.EndpointConfig{Net: host})
	other, _ := n.Host(t)
	reading := b.Join(t, "g", "call", "s1", rtctest.EndpointConfig{Net: other})
	for _, e := range []*rtctest.Endpoint{stalled, reading} {
		if err := e.Connect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for b.Server.Unread("g", "s0") > 0 { // of setting up
		select {
		case <-ctx.Done():
			t.Fatal("what was said at first is never read")
		case <-time.After(time.Millisecond):
		}
	}
	link.Set(rtctest.Impairment{Loss: 1})
	const size = 32 << 10
	message := make([]byte, size)
	for range rtc.MaxChannelQueue / size { // all that may wait
		b.Server.SendChannel("g", "s0", message)
	}
	settled := make(chan struct{})
	b.Server.Post("g", "s0", func() { close(settled) })
	<-settled
	if hits := limitHits(t, b, string(rtc.LimitChannelQueue)); hits != 0 || !b.Server.Exists("g", "s0") {
		t.Fatalf("1 MiB hit the limit %d times", hits)
	}
	b.Server.SendChannel("g", "s0", message, message) // one makes it more than that, the next one finds it
	if why := endedFor(t, b, "s0"); why != rtc.CloseStalled {
		t.Errorf("ended for %q", why)
	}
	if hits := limitHits(t, b, string(rtc.LimitChannelQueue)); hits != 1 || !b.Server.Exists("g", "s1") {
		t.Errorf("limit hit %d times, want once", hits)
	}
}

// A session is sent as many streams as it may have sections; what is beyond comes when there is room.
func TestSectionsOfASession(t *testing.T) {
	const most = 3
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.Limits.MediaSections = most })
	viewer := b.Join(t, "g", "call", "viewer", rtctest.EndpointConfig{})
	if err := viewer.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	publish := func(i int) {
		t.Helper()
		name := fmt.Sprint("s", i)
		e := b.Join(t, "g", "call", name, rtctest.EndpointConfig{})
		if err := e.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		announce(t, b, name, wire.SignalVideoOn, `{"videoStreamID":"cam"}`)
		if err := e.PublishVideo(ctx, webrtc.MimeTypeVP8, "cam"); err != nil {
			t.Fatal(err)
		}
		stream(t, e, webrtc.MimeTypeVP8, "cam", name+"/video")
	}
	before := limitHits(t, b, string(rtc.LimitSections))
	for i := range most {
		publish(i)
		sees(ctx, t, viewer, fmt.Sprintf("s%d/video", i), webrtc.MimeTypeVP8, 20)
	}
	if n := limitHits(t, b, string(rtc.LimitSections)) - before; n != 0 {
		t.Errorf("%d streams hit the limit", most)
	}
	publish(most)
	for i := range most { // they go on, and it is not among them
		sees(ctx, t, viewer, fmt.Sprintf("s%d/video", i), webrtc.MimeTypeVP8, viewer.Heard(fmt.Sprintf("s%d/video", i)).Packets+20)
	}
	if n := viewer.Heard(fmt.Sprintf("s%d/video", most)).Packets; n != 0 {
		t.Errorf("%d packets of a stream beyond the limit", n)
	}
	if limitHits(t, b, string(rtc.LimitSections)) == 0 {
		t.Error("the limit was not counted")
	}
	b.Server.Leave("g", "s0")
	sees(ctx, t, viewer, fmt.Sprintf("s%d/video", most), webrtc.MimeTypeVP8, 20)
	if err := viewer.Err(); err != nil {
		t.Error(err)
	}
}
