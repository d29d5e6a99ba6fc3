package forward

import (
	"testing"
	"time"

	"github.com/pion/rtcp"

	"rtcd/service/rtc/netio"
)

func TestTransit(t *testing.T) {
	r := newRig(t)
	now := time.Duration(0)
	r.plane.now = func() time.Time { return r.plane.start.Add(now) }
	out := netio.NewBatchFunc(func([]byte, netio.Path) { now += 300 * time.Microsecond }) // the kernel's part
	read := r.plane.NewReader(out)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	now = time.Second
	for range 2 { // of one batch
		read.Receive(speaker.seal(speaker.next(0)), speaker.path)
	}
	now += 100 * time.Microsecond
	read.Flush()
	got := r.plane.Transit()
	if got.Count != 2 || got.Buckets[0.0005] != 0 || got.Buckets[0.001] != 2 {
		t.Errorf("transit %+v, want two packets within 1 ms and none within 500 µs", got)
	}
	if want := 2 * 0.0007; got.Sum < want-1e-9 || got.Sum > want+1e-9 { // 100 µs and two sends, for both
		t.Errorf("sum %v, want %v", got.Sum, want)
	}
	read.Receive([]byte{0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, speaker.path) // forged
	read.Flush()
	if got := r.plane.Transit(); got.Count != 2 {
		t.Errorf("%d packets counted, want those that were passed on alone", got.Count)
	}
}

// A packet that comes late, after it was told missing, is taken back from the next ones.
func TestUplinkLoss(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	e.publish(PublicationConfig{})
	e.say(50)
	late := e.next(0)
	e.next(0) // lost
	e.say(48)
	r.second()
	if got, want := r.plane.Stats().Uplink, (Loss{Due: 100, Lost: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	e.push(e.seal(late))
	e.say(10)
	r.second()
	if got, want := r.plane.Stats().Uplink, (Loss{Due: 110, Lost: 2}); got != want {
		t.Errorf("after a late packet %+v, want %+v", got, want)
	}
	for range 3 {
		e.next(0)
	}
	e.say(10)
	r.second()
	if got, want := r.plane.Stats().Uplink, (Loss{Due: 123, Lost: 4}); got != want {
		t.Errorf("after three more are lost %+v, want %+v", got, want)
	}
}

func TestDownlinkLoss(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	sub := listener.subscribe(speaker.publish(PublicationConfig{}))
	report := func(lost uint32) {
		listener.tell(&rtcp.ReceiverReport{SSRC: 7, Reports: []rtcp.ReceptionReport{{SSRC: sub.ssrc, TotalLost: lost}}})
	}
	for _, step := range []struct {
		say  int
		lost uint32
		want Loss
	}{
		{100, 3, Loss{100, 3}},
		{0, 3, Loss{100, 3}},             // nothing new was sent
		{50, 1, Loss{150, 3}},            // two came after all
		{50, 5, Loss{200, 5}},            // four more are lost, two of which make up for those
		{10, 1 << 22, Loss{210, 15}},     // not more than was sent
		{10, 1<<22 + 1, Loss{220, 16}},   //
		{10, 1<<24 - 100, Loss{230, 16}}, // below 0: duplicates
	} {
		speaker.say(step.say)
		report(step.lost)
		if got := r.plane.Stats().Downlink; got != step.want {
			t.Errorf("after %d more packets and a report of %d lost: %+v, want %+v", step.say, step.lost, got, step.want)
		}
	}
}

func TestAudience(t *testing.T) {
	r := newRig(t)
	if got := r.plane.Audience(); len(got.Views) != 0 || got.Estimated != 0 {
		t.Errorf("nobody is there: %+v", got)
	}
	camera, pub := r.camera(gcm)
	viewer := r.endpoint(gcm)
	viewer.subscribe(pub)
	viewer.subscribe(r.endpoint(gcm).publish(PublicationConfig{}))
	a := r.plane.Audience()
	if a.Views[Viewing{Source: Voice}] != 1 || a.Views[Viewing{Source: pub.cfg.Source, Current: -1, Wanted: 0}] != 1 {
		t.Errorf("before a packet: %+v", a.Views)
	}
	camera.show(20)
	r.second()
	camera.show(20)
	r.second()
	a = r.plane.Audience()
	if a.Views[Viewing{Source: pub.cfg.Source}] != 1 {
		t.Errorf("while it is sent: %+v", a.Views)
	}
	if a.Estimated != 1 || a.Estimate <= 0 {
		t.Errorf("one receiver has a path, got %+v", a)
	}
	viewer.peer.Close()
	r.tick()
	if a = r.plane.Audience(); len(a.Views) != 0 || a.Estimated != 0 || a.Estimate != 0 {
		t.Errorf("after the end: %+v", a)
	}
}
