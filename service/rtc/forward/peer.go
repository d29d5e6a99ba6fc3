package forward

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/netio"
)

// Errors that callers act on.
var (
	// ErrClosed: the peer or publication was closed.
	ErrClosed = errors.New("closed")
	// ErrNotAttached: the peer has no keys yet.
	ErrNotAttached = errors.New("peer not attached")
	// ErrAttached: the peer has keys already.
	ErrAttached = errors.New("peer already attached")
	// ErrSSRCUsed: the peer was sent packets under that SSRC before. Once more, with the same
	// keys, would repeat nonces.
	ErrSSRCUsed = errors.New("ssrc already used")
)

// Limits of one session.
const (
	maxBits         = 12_000_000 // received per second
	maxPackets      = 3_000      // received per second
	maxRTCP         = 200        // RTCP packets received per second
	maxPaths        = 4          // that packets are accepted from; the newest is sent to
	maxOutboundSSRC = 1 << 16    // SSRCs used towards one peer in its life
)

// PeerConfig describes a peer.
type PeerConfig struct {
	// CNAME names the session in RTCP to those that receive its publications (RFC 3550 section
	// 6.5.1). Longer than 255 bytes it is cut.
	CNAME string

	// OnStream is called at the first packet of a stream of a declared section, and once more if
	// only a later one told the RID. It may only post.
	OnStream func(Stream)

	// SendsNothing drops all RTP of the endpoint, before it is decrypted.
	SendsNothing bool

	// Silenced, while it is set, mutes the sounds of the endpoint, whatever Publication.SetMuted says,
	// and does not listen to them. Who sets it calls Publication.Hush of them. nil: never.
	Silenced *atomic.Bool

	// Budget is what the endpoint may send together with others. nil: no such limit.
	Budget *Budget
}

// Peer is one endpoint's transport: a path, the keys, and what is received and sent with them.
// Its methods are safe for concurrent use.
type Peer struct {
	// What each packet to it needs, together.
	path    atomic.Pointer[netio.Path] // to send to; nil before Attach and after Close
	down    atomic.Pointer[downlink]   // nil before the first subscription to a video
	twccOut atomic.Uint32              // last transport-wide sequence number sent

	plane *Plane
	cname string
	hook  func(Stream)
	mute  bool         // what it sends is dropped
	hush  *atomic.Bool // never nil
	ssrc  uint32       // of our own feedback to it
	phase uint64       // which ticks do its reports

	// Tick's alone.
	spoke time.Duration // when its voice was on last
	hold  hold

	mu      sync.Mutex
	in      inbound // guarded by mu
	paths   []netio.Path
	closed  bool
	keys    Keys
	sealer  *sealer                  // nil if the profile is not AES-GCM
	pubs    []*Publication           // not closed
	subs    map[uint32]*Subscription // not closed, by SSRC
	ssrcs   map[uint32]bool          // reserved: false, used: true; never forgotten
	sublist atomic.Pointer[[]*Subscription]

	sendMu sync.Mutex
	rtcp   *srtp.Context // encrypts our RTCP, guarded by sendMu; nil before Attach and after Close
	header rtcp.Header   // for pion/srtp, which parses headers once more; guarded by sendMu
}

func newPeer(plane *Plane, cfg PeerConfig) *Peer {
	peer := &Peer{
		plane: plane,
		cname: cfg.CNAME[:min(len(cfg.CNAME), 255)],
		hook:  cfg.OnStream,
		mute:  cfg.SendsNothing,
		hush:  cfg.Silenced,
		in:    inbound{budget: cfg.Budget},
		subs:  make(map[uint32]*Subscription),
		ssrcs: make(map[uint32]bool),
	}
	if peer.hush == nil {
		peer.hush = new(atomic.Bool)
	}
	peer.ssrc = rand.Uint32()
	peer.ssrcs[peer.ssrc] = true
	peer.sublist.Store(new([]*Subscription))
	return peer
}

// Format writes the peer's name, whatever the verb: nothing inside a peer is for showing.
func (peer *Peer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "peer "+peer.cname) }

// Attach gives the peer its keys and the path that ICE selected. From then on packets from the
// path are received and the peer can be subscribed.
func (peer *Peer) Attach(path netio.Path, keys Keys) error {
	if err := keys.check(); err != nil {
		return err
	}
	keys = keys.clone()
	in, err := keys.inbound()
	if err != nil {
		return fmt.Errorf("make inbound srtp context: %w", err)
	}
	out, err := keys.outbound()
	if err != nil {
		return fmt.Errorf("make outbound srtcp context: %w", err)
	}
	sealer, err := keys.sealer()
	if err != nil {
		return fmt.Errorf("make outbound srtp cipher: %w", err)
	}

	peer.mu.Lock()
	switch {
	case peer.closed:
		peer.mu.Unlock()
		return ErrClosed
	case peer.in.srtp != nil:
		peer.mu.Unlock()
		return ErrAttached
	}
	peer.in.srtp, peer.in.tag = in, keys.tag()
	peer.keys, peer.sealer = keys, sealer
	peer.mu.Unlock()

	peer.sendMu.Lock()
	peer.rtcp = out
	peer.sendMu.Unlock()
	return peer.Move(path)
}

// Move changes the path that packets are sent to, as ICE selects another pair. Packets still on
// their way over the paths before it are received; the oldest of more than four is forgotten.
func (peer *Peer) Move(path netio.Path) error {
	peer.mu.Lock()
	if peer.closed {
		peer.mu.Unlock()
		return ErrClosed
	}
	if peer.in.srtp == nil {
		peer.mu.Unlock()
		return ErrNotAttached
	}
	peer.paths = slices.DeleteFunc(peer.paths, func(p netio.Path) bool { return p == path })
	peer.paths = append(peer.paths, path)
	var gone []netio.Path
	if extra := len(peer.paths) - maxPaths; extra > 0 {
		gone = slices.Clone(peer.paths[:extra])
		peer.paths = slices.Delete(peer.paths, 0, extra)
	}
	peer.path.Store(&path)
	peer.mu.Unlock()

	peer.plane.attach(path, peer)
	peer.plane.detach(peer, gone...)

	peer.mu.Lock()
	closed := peer.closed
	peer.mu.Unlock()
	if closed { // meanwhile, and did not know of the path
		peer.plane.detach(peer, path)
		return ErrClosed
	}
	return nil
}

// Close ends the peer's publications and subscriptions, forgets its keys and its paths.
func (peer *Peer) Close() {
	peer.mu.Lock()
	if peer.closed {
		peer.mu.Unlock()
		return
	}
	peer.closed = true
	paths, pubs, subs := peer.paths, slices.Clone(peer.pubs), *peer.sublist.Load()
	peer.path.Store(nil)
	peer.in = inbound{}
	peer.keys.wipe()
	peer.sealer = nil
	peer.mu.Unlock()

	peer.sendMu.Lock()
	peer.rtcp = nil
	peer.sendMu.Unlock()
	peer.plane.detach(peer, paths...)
	peer.plane.forget(peer)
	for _, pub := range pubs {
		pub.Close()
	}
	for _, sub := range subs {
		sub.Close()
	}
}

// NewSSRC returns an SSRC for a subscription of this peer: one that it was never sent and does
// not send itself, as far as that is known.
func (peer *Peer) NewSSRC() uint32 {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	for {
		ssrc := rand.Uint32()
		if _, taken := peer.ssrcs[ssrc]; ssrc == 0 || taken || peer.in.declares(ssrc) {
			continue
		}
		if len(peer.ssrcs) < maxOutboundSSRC {
			peer.ssrcs[ssrc] = false
		}
		return ssrc
	}
}

// SetUplinks declares the sections the endpoint may send on, as its applied description has
// them. Streams and publications of sections that stay, by their MIDs, go on.
func (peer *Peer) SetUplinks(uplinks []Uplink) {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if !peer.closed {
		peer.in.setUplinks(uplinks)
	}
}

// Publish makes the section with that MID feed a new publication, from the next packet on and in
// the place of the one it fed before. The section may be declared later.
func (peer *Peer) Publish(mid string, cfg PublicationConfig) (*Publication, error) {
	pub := newPublication(peer, mid, cfg)
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if peer.closed {
		return nil, ErrClosed
	}
	peer.pubs = append(peer.pubs, pub)
	peer.in.bind(mid, pub)
	return pub, nil
}

// unpublish forgets pub.
func (peer *Peer) unpublish(pub *Publication) {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	peer.pubs = slices.DeleteFunc(peer.pubs, func(p *Publication) bool { return p == pub })
	peer.in.unbind(pub)
}

// subscribe registers sub and gives it its context.
func (peer *Peer) subscribe(sub *Subscription) error {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	switch used, reserved := peer.ssrcs[sub.ssrc]; {
	case peer.closed:
		return ErrClosed
	case peer.in.srtp == nil:
		return ErrNotAttached
	case used:
		return fmt.Errorf("%w: %d", ErrSSRCUsed, sub.ssrc)
	case !reserved && len(peer.ssrcs) >= maxOutboundSSRC:
		return fmt.Errorf("%w: no more than %d in the life of a peer", ErrSSRCUsed, maxOutboundSSRC)
	}
	if sub.sealer = peer.sealer; sub.sealer == nil {
		context, err := peer.keys.outbound()
		if err != nil {
			return fmt.Errorf("make outbound srtp context: %w", err)
		}
		sub.context = context
	}
	peer.ssrcs[sub.ssrc] = true
	if sub.repair != 0 {
		if peer.ssrcs[sub.repair] {
			return fmt.Errorf("%w: %d", ErrSSRCUsed, sub.repair)
		}
		peer.ssrcs[sub.repair] = true
	}
	if sub.view != nil && peer.down.Load() == nil {
		peer.down.Store(newDownlink())
	}
	peer.subs[sub.ssrc] = sub
	peer.listSubscriptions()
	return nil
}

// unsubscribe forgets sub.
func (peer *Peer) unsubscribe(sub *Subscription) {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	delete(peer.subs, sub.ssrc)
	peer.listSubscriptions()
}

// listSubscriptions publishes the subscriptions to Tick. It is called with mu held.
func (peer *Peer) listSubscriptions() {
	list := make([]*Subscription, 0, len(peer.subs))
	for _, sub := range peer.subs {
		list = append(list, sub)
	}
	slices.SortFunc(list, func(a, b *Subscription) int { return int(int64(a.ssrc) - int64(b.ssrc)) })
	peer.sublist.Store(&list)
}

// writeRTCP encrypts the compound packet b for the peer and queues it on out.
func (peer *Peer) writeRTCP(out *netio.Batch, b []byte, c *counts) {
	path := peer.path.Load()
	if path == nil || len(b) == 0 {
		return
	}
	slot := out.Slot()
	peer.sendMu.Lock()
	if peer.rtcp == nil {
		peer.sendMu.Unlock()
		return
	}
	encrypted, err := peer.rtcp.EncryptRTCP(slot, b, &peer.header)
	peer.sendMu.Unlock()
	if err != nil {
		c.drop(DropEncrypt)
		return
	}
	out.Commit(len(encrypted), *path)
	c.RTCPOut++
}
