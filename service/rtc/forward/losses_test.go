package forward

import (
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"pgregory.net/rapid"
)

// asked returns the packets that the endpoint was asked for again since the last time.
func (e *endpoint) asked() (seqs []uint16) {
	e.t.Helper()
	_, told := e.sent()
	for _, n := range find[*rtcp.TransportLayerNack](told) {
		if n.MediaSSRC != e.ssrc || n.SenderSSRC != e.peer.ssrc {
			e.t.Fatalf("NACK %+v, want for %x from %x", n, e.ssrc, e.peer.ssrc)
		}
		for _, pair := range n.Nacks {
			seqs = append(seqs, pair.PacketList()...)
		}
	}
	return seqs
}

// lose returns the next n video packets sealed, for the test to send later or never.
func (e *endpoint) lose(n int) (sealed [][]byte, lost []*rtp.Packet) {
	for range n {
		p := e.nextVideo()
		sealed, lost = append(sealed, e.seal(p)), append(lost, p)
	}
	return sealed, lost
}

func TestSendersAreAskedForWhatIsMissing(t *testing.T) {
	for name, start := range map[string]uint16{"in the middle": 1000, "across the roll-over": 65524} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, pub := r.camera(gcm)
			viewer := r.endpoint(gcm)
			viewer.subscribe(pub)
			speaker.seq = start
			before := speaker.show(10)
			sealed, lost := speaker.lose(3)
			var after []*rtp.Packet
			for i := range uint16(3) { // each is merely late until three newer ones are there
				after = append(after, speaker.show(1)...)
				if got := speaker.asked(); !slices.Equal(got, []uint16{start + 10 + i}) {
					t.Fatalf("asked for %v, want %d", got, start+10+i)
				}
			}
			speaker.push(sealed[1])
			for range 3 {
				r.advance(TickInterval)
				r.tick()
			}
			if got := speaker.asked(); !slices.Equal(got, []uint16{start + 10, start + 12, start + 10, start + 12}) {
				t.Fatalf("asked for %v, want those still missing, twice", got)
			}
			speaker.push(sealed[0])
			speaker.push(sealed[2])
			for range 20 {
				r.advance(TickInterval)
				r.tick()
			}
			if got := speaker.asked(); len(got) != 0 {
				t.Errorf("asked for %v, want nothing any more", got)
			}
			want := slices.Concat(before, after, []*rtp.Packet{lost[1], lost[0], lost[2]})
			wantPackets(t, viewer.heard(), want)
			if s := pub.Stats(); s.Lost != 0 {
				t.Errorf("%d packets lost, want none in the end", s.Lost)
			}
		})
	}
}

func TestSendersAreAskedNoMoreThanAFewTimes(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	viewer := r.endpoint(gcm)
	viewer.subscribe(pub)
	speaker.show(2)
	sealed, lost := speaker.lose(1)
	speaker.show(2)
	var at []time.Duration
	begin := r.clock()
	for range 400 {
		for range speaker.asked() {
			at = append(at, r.clock().Sub(begin).Round(askAgain))
		}
		r.advance(10 * time.Millisecond)
		r.tick()
	}
	if want := []time.Duration{0, askAgain, 3 * askAgain, 6 * askAgain, 10 * askAgain}; !slices.Equal(at, want) {
		t.Errorf("asked at %v, want %v", at, want)
	}
	// It may come all the same.
	viewer.heard()
	speaker.push(sealed[0])
	wantPackets(t, viewer.heard(), lost)
}

func TestNothingIsAskedForInVain(t *testing.T) {
	lossy := func(e *endpoint) {
		e.show(3)
		e.lose(1)
		e.show(30)
		e.tick()
	}
	t.Run("merely late", func(t *testing.T) {
		r := newRig(t)
		speaker, pub := r.camera(gcm)
		r.endpoint(gcm).subscribe(pub)
		for range 20 {
			speaker.show(1)
			late, _ := speaker.lose(1)
			speaker.show(1)
			speaker.push(late[0])
			r.tick()
		}
		if got := speaker.asked(); len(got) != 0 {
			t.Errorf("asked for %v, want nothing", got)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		r := newRig(t)
		speaker, _ := r.camera(gcm)
		lossy(speaker)
		if got := speaker.asked(); len(got) != 0 {
			t.Errorf("asked for %v, want nothing", got)
		}
	})
	t.Run("voice", func(t *testing.T) {
		r := newRig(t)
		speaker := r.endpoint(gcm)
		r.endpoint(gcm).subscribe(speaker.publish(PublicationConfig{}))
		speaker.say(3)
		speaker.next(0)
		speaker.say(30)
		r.tick()
		if got := speaker.asked(); len(got) != 0 {
			t.Errorf("asked for %v, want nothing", got)
		}
	})
	t.Run("long gap", func(t *testing.T) {
		r := newRig(t)
		speaker, pub := r.camera(gcm)
		r.endpoint(gcm).subscribe(pub)
		speaker.show(3)
		speaker.lose(lossWindow)
		speaker.show(5)
		if got := speaker.asked(); len(got) != 0 {
			t.Errorf("asked for %v, want nothing", got)
		}
		r.advance(time.Second)
		lossy(speaker)
		if got := speaker.asked(); len(got) == 0 {
			t.Error("asked for nothing after it, want the lost one")
		}
	})
}

// A packet that was asked for and comes as late as the window is wide is forwarded, and the
// reports count on.
func TestFilledGapIsForwardedHoweverLate(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	viewer := r.endpoint(gcm)
	viewer.subscribe(pub)
	speaker.seq = 65400
	speaker.show(2)
	sealed, lost := speaker.lose(1)
	speaker.show(lossWindow - 10)
	viewer.heard()
	jitter := pub.Stats().Jitter
	speaker.push(sealed[0])
	wantPackets(t, viewer.heard(), lost)
	if s := pub.Stats(); s.Lost != 0 || s.Packets != lossWindow-10+3 || s.Jitter != jitter {
		t.Errorf("stats %+v, want none lost, jitter %v", s, jitter)
	}
}

func TestLossesOfAnUnsteadySource(t *testing.T) {
	var l losses
	ask := func(now time.Duration) int {
		b := l.appendNACK(nil, 1, 2, now)
		if len(b) == 0 {
			return 0
		}
		var n rtcp.TransportLayerNack
		if err := n.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		asked := 0
		for _, pair := range n.Nacks {
			asked += len(pair.PacketList())
		}
		return asked
	}
	now := time.Second
	for i := range uint16(10) { // gaps that are together wider than the window
		l.note(i*400, now)
	}
	if l.n > lossWindow {
		t.Fatalf("%d packets on the list", l.n)
	}
	if n := ask(now + reorderTime); n != lossWindow-1 {
		t.Errorf("asked for %d, want those of the window", n)
	}
	l.note(3600-restartedBy-1, now) // begins afresh
	if l.n != 0 {
		t.Errorf("%d packets of before on the list", l.n)
	}
	l.note(3600-restartedBy+1, now)
	if n := ask(now + reorderTime + askEvery/2); n != 0 {
		t.Errorf("asked for %d right after the last time, want none", n)
	}
	if n := ask(now + reorderTime + askEvery); n != 1 {
		t.Errorf("asked for %d, want one", n)
	}
}

// Whatever is lost, late and doubled: what is asked for is missing, within the window, and asked
// for a few times at most; and what stays missing is asked for.
func TestLosses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l losses
		seq := rapid.Uint16().Draw(t, "start")
		now := time.Second
		came := map[uint16]bool{}
		asks := map[uint16]int{}
		note := func(seq uint16) {
			l.note(seq, now)
			came[seq] = true
		}
		note(seq)
		begin := seq
		ask := func() {
			b := l.appendNACK([]byte("before"), 1, 2, now)
			if b = b[6:]; len(b) == 0 {
				return
			}
			var n rtcp.TransportLayerNack
			if err := n.Unmarshal(b); err != nil || len(b) > 12+4*(lossWindow/17+1) {
				t.Fatalf("NACK of %d bytes: %v", len(b), err)
			}
			for _, pair := range n.Nacks {
				for _, s := range pair.PacketList() {
					if asks[s]++; came[s] || seq-s > lossWindow || asks[s] > maxAsks {
						t.Fatalf("asked for %d, %d behind, %d times; came: %v", s, seq-s, asks[s], came[s])
					}
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0:
				seq += uint16(rapid.IntRange(2, 40).Draw(t, "gap"))
				note(seq)
			case 1:
				if back := uint16(rapid.IntRange(0, 60).Draw(t, "back")); seq-begin > back {
					note(seq - back)
				}
			default:
				seq++
				note(seq)
			}
			now += time.Duration(rapid.IntRange(0, 50).Draw(t, "ms")) * time.Millisecond
			ask()
			if seq-begin > 60_000 {
				return
			}
		}
		for range 300 {
			now += askEvery
			ask()
		}
		for s := begin; s != seq; s++ {
			if seq-s < lossWindow && !came[s] && asks[s] != maxAsks {
				t.Fatalf("%d, %d behind, was asked for %d times, want %d", s, seq-s, asks[s], maxAsks)
			}
		}
		if l.n != 0 {
			t.Fatalf("%d packets still on the list", l.n)
		}
	})
}
