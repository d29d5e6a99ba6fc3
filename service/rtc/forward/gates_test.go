package forward

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// TestSendsNothing (TK-24): what an endpoint sends that may not send is dropped for that reason,
// before it is decrypted; what it reports is taken, and it is sent what it subscribed to.
func TestSendsNothing(t *testing.T) {
	r := newRig(t)
	viewer := r.endpointAs(gcm, PeerConfig{SendsNothing: true})
	speaker := r.endpoint(gcm)
	pub := viewer.publish(PublicationConfig{})
	speaker.subscribe(pub)
	viewer.subscribe(speaker.publish(PublicationConfig{}))
	viewer.say(50)
	if got := speaker.heard(); len(got) != 0 || r.drops(DropRole) != 50 {
		t.Errorf("%d packets arrived, %d dropped for the role, want 0, 50", len(got), r.drops(DropRole))
	}
	if len(viewer.streams) != 0 {
		t.Errorf("streams %v of who sends nothing", viewer.streams)
	}
	sent := speaker.say(10)
	wantPackets(t, viewer.heard(), sent)
}

// TestSilenced (TK-23): while an endpoint is silenced none of its sounds passes, of publications that
// are there and of new ones, whatever its own mute says, and it is not heard speaking. Afterwards the
// sequence goes on without a gap.
func TestSilenced(t *testing.T) {
	r := newRig(t)
	var silenced atomic.Bool
	speaker, listener := r.endpointAs(gcm, PeerConfig{Silenced: &silenced}), r.endpoint(gcm)
	var voice []bool
	cfg := PublicationConfig{Floor: NewFloor(1), OnVoice: func(on bool) { voice = append(voice, on) }}
	pub := speaker.publish(cfg)
	listener.subscribe(pub)
	// Levels that a detector takes for a voice, and no lull at the end.
	speak := func(n int) (sent []*rtp.Packet) {
		for i := range n {
			p := speaker.next([]uint8{20, 60}[i/5%2])
			sent = append(sent, p)
			speaker.push(speaker.seal(p))
			r.advance(20 * time.Millisecond)
		}
		return sent
	}
	before := speak(100)
	wantPackets(t, listener.heard(), before)
	if !pub.Speaking() || !slices.Equal(voice, []bool{true}) {
		t.Fatalf("not heard speaking: %v", voice)
	}

	silenced.Store(true)
	pub.Hush()
	pub.SetMuted(true)
	pub.SetMuted(false) // which is the endpoint's own
	speak(100)
	if got := listener.heard(); len(got) != 0 || r.drops(DropMuted) != 100 {
		t.Errorf("%d packets of a silenced voice arrived, %d dropped, want 0, 100", len(got), r.drops(DropMuted))
	}
	if pub.Speaking() || !pub.Muted() || !slices.Equal(voice, []bool{true, false}) {
		t.Errorf("speaking %v, muted %v, told %v while silenced", pub.Speaking(), pub.Muted(), voice)
	}
	silenced.Store(false)
	after := speak(40)
	got := listener.heard()
	if len(got) != len(after) {
		t.Fatalf("%d packets afterwards, want %d", len(got), len(after))
	}
	for i, p := range got {
		if want := before[99].SequenceNumber + 1 + uint16(i); p.SequenceNumber != want {
			t.Fatalf("sequence number %d after the silence, want %d", p.SequenceNumber, want)
		}
	}
	if !slices.Equal(voice, []bool{true, false}) {
		t.Errorf("told %v: judged by what came while silenced", voice)
	}

	silenced.Store(true)
	pub.Close()
	sound := speaker.publish(PublicationConfig{Source: ScreenAudio})
	listener.subscribe(sound)
	speak(10)
	if got := listener.heard(); len(got) != 0 || !sound.Muted() {
		t.Errorf("%d packets of a new sound arrived", len(got))
	}
}

// TestSilencedLeavesPictures: a moderator's mute is of sounds alone.
func TestSilencedLeavesPictures(t *testing.T) {
	r := newRig(t)
	silenced := new(atomic.Bool)
	silenced.Store(true)
	speaker := r.endpointAs(gcm, PeerConfig{Silenced: silenced})
	if pub := speaker.publish(PublicationConfig{Source: Camera}); pub.Muted() {
		t.Error("a camera is muted with the voice")
	}
}

// TestBudget: what several peers send together passes up to the limit, and one packet more does not,
// by any of them; others are not touched. Forged packets use nothing of it.
func TestBudget(t *testing.T) {
	r := newRig(t)
	probe := r.endpoint(gcm)
	size := len(probe.seal(probe.next(levelLoud))) * 8 // like all that follow
	budget := NewBudget(int64(20 * size))
	a, b := r.endpointAs(gcm, PeerConfig{Budget: budget}), r.endpointAs(gcm, PeerConfig{Budget: budget})
	other, listener := r.endpoint(gcm), r.endpoint(gcm)
	for _, e := range []*endpoint{a, b, other} {
		listener.subscribe(e.publish(PublicationConfig{}))
	}
	for range 100 { // not of a
		forged := a.next(levelLoud)
		a.push(probe.seal(forged))
	}
	if n := r.drops(DropAuth); n != 100 {
		t.Fatalf("%d forged packets dropped, want 100", n)
	}
	send := func(e *endpoint, n int) int {
		for range n {
			e.push(e.seal(e.next(levelLoud)))
		}
		return len(listener.heard())
	}
	if n := send(a, 12) + send(b, 8); n != 20 || r.drops(DropClientRate) != 0 {
		t.Fatalf("%d packets arrived at the limit, %d dropped, want 20, 0", n, r.drops(DropClientRate))
	}
	if n := send(a, 1) + send(b, 1); n != 0 || r.drops(DropClientRate) != 2 {
		t.Errorf("%d packets arrived over the limit, %d dropped, want 0, 2", n, r.drops(DropClientRate))
	}
	if n := send(other, 50); n != 50 {
		t.Errorf("%d of 50 packets of another client arrived", n)
	}
	r.advance(50 * time.Millisecond)
	if n := send(a, 5) + send(b, 5); n != 1 {
		t.Errorf("%d packets arrived after a twentieth of a second, want 1", n)
	}
	r.advance(time.Hour)
	if n := send(b, 25); n != 20 {
		t.Errorf("%d packets arrived after a pause, want 20", n)
	}
}

// TestBudgetIsShared: readers that spend at the same time lose nothing of what was spent.
func TestBudgetIsShared(t *testing.T) {
	b := NewBudget(1000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 250 {
				b.spend(1, time.Second)
			}
		})
	}
	wg.Wait()
	if b.has(1, time.Second) || !b.has(1, time.Second+time.Millisecond) {
		t.Error("1,000 bits were spent at once, and not exactly the second's worth is gone")
	}
}

// TestGatesAllocateNothing: what a gate costs per packet is no memory.
func TestGatesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t)
	var silenced atomic.Bool
	a := r.endpointAs(gcm, PeerConfig{Silenced: &silenced, Budget: NewBudget(1 << 40)})
	a.publish(PublicationConfig{})
	packets := make([][]byte, 400)
	for i := range packets {
		packets[i] = a.seal(a.next(levelLoud))
	}
	next := 0
	if n := testing.AllocsPerRun(300, func() {
		r.read.Receive(packets[next], a.path)
		r.read.Flush()
		next++
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}
