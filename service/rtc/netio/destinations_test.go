package netio

import (
	"net/netip"
	"testing"
	"time"
)

// marked returns the mark of a packet to a destination.
func marked(d *destinations, to Path, now time.Duration) mark {
	b := NewBatchFunc(func([]byte, Path) {})
	b.Commit(copy(b.Slot()[:1], "x"), to)
	var marks [1]mark
	d.mark(b, marks[:], now)
	return marks[0]
}

func TestPauses(t *testing.T) {
	var d destinations
	bad, good := NewPath(0, remote(1), false), NewPath(0, remote(2), false)
	now := time.Hour
	for range failuresInRow - 1 {
		d.failed(bad, DropForbidden, 3, now)
		if m := marked(&d, bad, now); m != markFailing {
			t.Fatalf("mark %b", m)
		}
	}
	d.sent(bad)
	if m := marked(&d, bad, now); m != 0 {
		t.Errorf("mark %b after a message took", m)
	}
	for range failuresInRow {
		d.failed(bad, DropUnreachable, 1, now)
	}
	for _, pause := range []time.Duration{100, 200, 400, 800, 1600, 2000, 2000} {
		pause *= time.Millisecond
		if m := marked(&d, bad, now+pause-1); m != markFailing|markPaused {
			t.Errorf("mark %b before %v", m, pause)
		}
		if m := marked(&d, bad, now+pause); m != markFailing {
			t.Errorf("mark %b after %v", m, pause)
		}
		now += pause
		for range 5 { // several messages in the flush that tries again
			d.failed(bad, DropUnreachable, 1, now)
		}
	}
	if m := marked(&d, good, now); m != 0 {
		t.Errorf("mark %b of another destination", m)
	}
	if failing, paused, whole := d.counts(now); failing != 1 || paused != 1 || whole != 0 {
		t.Errorf("%d failing, %d paused, %d whole", failing, paused, whole)
	}
	want := SendFault{To: bad, Packets: 3*(failuresInRow-1) + failuresInRow + 7*5, Last: DropUnreachable, Paused: longestPause}
	if f := d.faults(now); len(f) != 1 || f[0] != want {
		t.Errorf("faults %+v, want %+v", f, want)
	}
	d.sent(bad)
	if m := marked(&d, bad, now); m != 0 {
		t.Errorf("mark %b after the pause", m)
	}
	d.forget(now + forgetErrors - 1)
	if d.n.Load() != 1 {
		t.Error("forgotten too soon")
	}
	d.forget(now + forgetErrors)
	if d.n.Load() != 0 || len(d.known) != 0 {
		t.Error("not forgotten")
	}
}

func TestWholeForAWhile(t *testing.T) {
	var d destinations
	to := NewPath(0, remote(1), false)
	d.refusedSegments(to, time.Hour)
	if _, paused, whole := d.counts(time.Hour); paused != 0 || whole != 1 {
		t.Errorf("%d paused, %d whole", paused, whole)
	}
	if m := marked(&d, to, time.Hour+wholeFor-1); m != markWhole {
		t.Errorf("mark %b", m)
	}
	if m := marked(&d, to, time.Hour+wholeFor); m != 0 {
		t.Errorf("mark %b later", m)
	}
	if d.forget(time.Hour + wholeFor); d.n.Load() != 0 {
		t.Error("not forgotten")
	}
}

// However many destinations fail, memory is bounded.
func TestDestinationsAreBounded(t *testing.T) {
	var d destinations
	for i := range 3 * maxDestinations {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		d.failed(NewPath(0, netip.AddrPortFrom(addr, 9), false), DropForbidden, 1, time.Duration(i))
	}
	if len(d.known) != maxDestinations || int(d.n.Load()) != maxDestinations {
		t.Errorf("%d remembered, %d counted", len(d.known), d.n.Load())
	}
}

func TestReasonsOfDestinations(t *testing.T) {
	for reason := range Drop(numDrops) {
		want := reason == DropUnreachable || reason == DropForbidden || reason == DropTooLarge || reason == DropSendError
		if reason.ofDestination() != want {
			t.Errorf("%v: %v", reason, !want)
		}
	}
}
