// Package forward is the data plane: it decrypts the packets of publications, fans them out to
// their subscriptions and encrypts them anew, each receiver's under its own SSRC.
//
// A packet is run to completion. netio's reader goroutine hands it to NewReader's, which decrypts it
// in place and keeps it until the batch ends; then, receiver by receiver, each copy is encrypted
// straight into a slot of the outgoing batch. Per packet nothing here allocates or logs, and the
// locks taken are uncontended but for moments: they exist because an endpoint's path can move
// from one reader to another, and because the control plane changes things now and then.
//
// Videos are more than that: the last packets are kept, once for all receivers, for those who
// miss some (history), senders are asked for what did not come (losses) and for keyframes
// (keyframeRequest). What a payload means nothing here knows.
//
// Nothing here knows of SDP, calls or people, and nothing here starts a goroutine: Tick does what
// is due by the clock. Hooks are called without locks and must do no more than post to their
// owner.
package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/netio"
)

// TickInterval is the time between calls of Plane.Tick.
const TickInterval = 100 * time.Millisecond

// reportTicks is how many ticks there are between the SR and RR of one peer.
const reportTicks = 10

// Config is what a Plane needs.
type Config struct {
	// Now is the clock, read twice per batch of packets and once per publication in it. It must
	// carry a monotonic reading or not run backwards. nil means time.Now.
	Now func() time.Time

	// History is how many packets of each layer are kept for those who miss them: a power of two,
	// 32 to 8192. 0 means 512.
	History int

	// LastCameras is how many cameras a peer is sent, those of the most recent speakers. 0 means
	// all.
	LastCameras int

	// HoldLayers tells senders not to send layers of a simulcast that nobody is to be sent, if
	// they take REMB. It saves their uplinks, but such a layer takes seconds to come back.
	HoldLayers bool
}

// Plane is the data plane of one server. It implements netio.Media.
type Plane struct {
	now     func() time.Time
	start   time.Time
	history int
	cameras int
	holds   bool
	counts  counters
	transit transit
	totals  pathTotals

	published atomic.Uint64 // publications so far
	slowest   atomic.Int64  // that a batch took since the last sample, nanoseconds

	byPath paths // changed by attach and detach under mu

	mu    sync.Mutex
	peers map[*Peer]struct{} // guarded by mu
	made  uint64             // peers made so far, guarded by mu

	ticking tick // used by Tick alone
}

var _ netio.Media = (*Plane)(nil)

// NewPlane returns a plane without peers.
func NewPlane(cfg Config) *Plane {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.History == 0 {
		cfg.History = defaultHistory
	}
	return &Plane{
		now: cfg.Now, start: cfg.Now(), peers: make(map[*Peer]struct{}),
		history: cfg.History, cameras: cfg.LastCameras, holds: cfg.HoldLayers,
	}
}

// NewReader returns the plane's half of a reading goroutine that owns out.
func (p *Plane) NewReader(out *netio.Batch) netio.Reader { return &reader{plane: p, out: out} }

// Known reports whether path is that of an attached peer.
func (p *Plane) Known(path netio.Path) bool { return p.byPath.find(path) != nil }

// NewPeer returns a peer that is not attached to a path yet.
func (p *Plane) NewPeer(cfg PeerConfig) *Peer {
	peer := newPeer(p, cfg)
	p.mu.Lock()
	defer p.mu.Unlock()
	peer.phase = p.made % reportTicks
	p.made++
	p.peers[peer] = struct{}{}
	return peer
}

// Stats returns the totals of all peers, past ones included.
func (p *Plane) Stats() Stats { return p.counts.snapshot() }

// clock returns the time since the plane was made.
func (p *Plane) clock() time.Duration { return p.now().Sub(p.start) }

// ntp returns the wall-clock time at now. The plane's clock is set once, so that sender reports
// do not jump when the host's is corrected.
func (p *Plane) ntp(now time.Duration) uint64 { return toNTP(p.start.Add(now)) }

// attach makes packets from path belong to peer, taking the path from whoever had it: addresses
// are used again.
func (p *Plane) attach(path netio.Path, peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byPath.set(path, peer)
}

// detach ends that for paths that are still the peer's.
func (p *Plane) detach(peer *Peer, paths ...netio.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, path := range paths {
		if p.byPath.find(path) == peer {
			p.byPath.set(path, nil)
		}
	}
}

// forget takes the peer off the list of those that Tick serves.
func (p *Plane) forget(peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.peers, peer)
}
