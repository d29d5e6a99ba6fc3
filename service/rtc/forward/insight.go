package forward

import (
	"sync/atomic"
	"time"
)

// transitBounds are the upper bounds of the buckets of Plane.Transit.
var transitBounds = [...]time.Duration{
	25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond,
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
}

// transit counts how long packets stay in the server.
type transit struct {
	buckets [len(transitBounds) + 1]atomic.Uint64 // the last one: longer than all bounds
	nanos   atomic.Int64
}

// observe counts n packets that stayed for took each.
func (t *transit) observe(took time.Duration, n int) {
	i := 0
	for i < len(transitBounds) && took > transitBounds[i] {
		i++
	}
	t.buckets[i].Add(uint64(n))
	t.nanos.Add(int64(took) * int64(n))
}

// Transit returns how long packets of publications stayed in the server so far: from the moment their
// batch had been read from the socket to the one at which all that came of it had been handed to the
// kernel. All packets of a batch count with the time of the whole batch, which is the longest any of
// them can have taken.
func (p *Plane) Transit() HistogramSnapshot {
	return snapshot(p.transit.buckets[:], transitBounds[:], &p.transit.nanos)
}

// A Viewing is a way in which videos are sent: of which source, as which stream of a simulcast (-1:
// none), and as which they are to be.
type Viewing struct {
	Source          Source
	Current, Wanted int
}

// Audience is what the receivers are sent, and what their paths carry, at one moment.
type Audience struct {
	// Views counts subscriptions. Sounds have one stream, which is sent and wanted.
	Views map[Viewing]int

	// Of the peers that are sent videos, as they were at the last tick.
	Estimated int   // how many there are
	Limited   int   // of those: sent less of videos than there is, for the sake of their paths
	Estimate  int64 // what their paths carry, bits per second, together
	Sending   int64 // what they are sent, with sounds and without padding; likewise
}

// Audience takes a census of the subscriptions. It holds no lock that packets wait for.
func (p *Plane) Audience() Audience {
	p.mu.Lock()
	peers := make([]*Peer, 0, len(p.peers))
	for peer := range p.peers {
		peers = append(peers, peer)
	}
	p.mu.Unlock()
	a := Audience{
		Views:     make(map[Viewing]int),
		Estimated: int(p.totals.peers.Load()), Limited: int(p.totals.limited.Load()),
		Estimate: p.totals.estimate.Load(), Sending: p.totals.sending.Load(),
	}
	for _, peer := range peers {
		for _, sub := range *peer.sublist.Load() {
			v := Viewing{Source: sub.pub.cfg.Source}
			if sub.view != nil {
				v.Current = int(unpackTarget(sub.current.Load()).layer)
				v.Wanted = int(unpackTarget(sub.target.Load()).layer)
			}
			a.Views[v]++
		}
	}
	return a
}

// pathTotals are sums over the peers that are sent videos. Tick writes them.
type pathTotals struct{ peers, limited, estimate, sending atomic.Int64 }

// pathSums are the same while Tick adds them up.
type pathSums struct{ peers, limited, estimate, sending int64 }

func (s *pathSums) add(d *downlink) {
	if d.estimate == 0 {
		return // it is sent no video now
	}
	s.peers++
	s.estimate += int64(d.estimate)
	s.sending += int64(d.sending.bps())
	if d.limited {
		s.limited++
	}
}

func (t *pathTotals) set(s pathSums) {
	t.peers.Store(s.peers)
	t.limited.Store(s.limited)
	t.estimate.Store(s.estimate)
	t.sending.Store(s.sending)
}

// loss returns how many packets came due since the last report, and how many are missing that no
// call before has told of. A packet that comes after it was told missing makes up for the next one
// that is. It is to be called just before appendReport.
func (r *reception) loss() (due, lost uint64) {
	interval := r.highest - r.base + 1 - r.expectedPrior
	r.missing += int32(interval) - int32(r.received-r.receivedPrior)
	if r.missing > 0 {
		lost, r.missing = uint64(r.missing), 0
	}
	return uint64(interval), lost
}

// told returns how many packets the receiver reports on for the first time, and how many of those it
// did not get. lost is the cumulative number of its report; what it says is believed within what it
// was sent.
func (sub *Subscription) told(lost int32) (due, gone uint64) {
	sent := sub.packets.Load()
	before := sub.judged.Swap(sent)
	if sent <= before {
		return 0, 0
	}
	due = sent - before
	if most := sub.mostLost.Load(); lost > most && sub.mostLost.CompareAndSwap(most, lost) {
		gone = min(uint64(lost-most), due)
	}
	return due, gone
}
