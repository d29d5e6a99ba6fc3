package forward

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/netio"
)

// rollOverGuard is how many numbers before a roll-over of the sequence a subscription does not
// begin. A receiver that missed all packets before it would never find the roll-over counter
// (RFC 3711 section 3.3.1), and hear nothing until it subscribed anew.
const rollOverGuard = 8

// SubscriptionConfig describes what a receiver gets a publication as.
type SubscriptionConfig struct {
	SSRC        uint32 // from Peer.NewSSRC, used once
	PayloadType uint8  // 0 to 127
	Ext         Extensions
	MID         string // of the receiver's section, for packets if Ext.MID was negotiated

	// Repair is the SSRC of the repair stream (RFC 4588), from Peer.NewSSRC or pion, and its
	// payload type; 0 if none was negotiated.
	Repair            uint32
	RepairPayloadType uint8

	// RED is the payload type of redundant audio (RFC 2198); 0 if it was not negotiated. Without
	// it the receiver is sent what is newest in such packets.
	RED uint8

	// NACK says that the receiver of an audio may ask for packets again; that of a video may.
	NACK bool
}

// Subscription is one peer's reception of one publication. Its methods are safe for concurrent
// use.
type Subscription struct {
	// What each packet needs, in two cache lines: a sound goes to hundreds.

	peer    *Peer    // that receives
	sealer  *sealer  // the peer's; nil if its profile is not AES-GCM
	numbers sequence // sent; guarded by pub.fanning
	view    *view    // of a video, else nil; guarded by pub.fanning
	log     *sendLog // nil if nothing is ever sent again, and before the first packet; likewise
	mid     string   // that the receiver is told in each packet; "" if it is not

	ssrc            uint32
	payloadType     uint8
	red             uint8
	nack            bool
	started         bool // guarded by pub.fanning
	ext             Extensions
	passed          [numKinds]uint8 // ids of what is passed on
	closed          atomic.Bool
	first           uint64        // number of the first packet sent, of a sound; guarded by pub.fanning
	packets, octets atomic.Uint64 // sent

	// The rest.

	pub        *Publication
	context    *srtp.Context // if there is no sealer. Its own: it is not safe for concurrent use; guarded by pub.fanning
	repairs    sequence      // sent on the repair stream; likewise
	repair     uint32
	repairType uint8
	repairSeq  uint16 // guarded by pub.fanning
	scratch    []byte // for what is taken out of redundant audio, or needs more room; likewise
	closing    sync.Once

	// target is what is to be sent of a video, current what is, both packed.
	target, current atomic.Uint32
	clock           atomic.Uint64 // what timestamps of a video mean, see view.clock
	padding         atomic.Int64  // bits per second that are to be sent beside it

	// From the receiver's last report.
	fractionLost atomic.Uint32 // of 256
	lost         atomic.Int32  // packets
	jitter       atomic.Uint32 // in timestamp units
	roundTrip    atomic.Int64  // nanoseconds
	mostLost     atomic.Int32  // packets, the most of all reports
	judged       atomic.Uint64 // packets sent when the last report came
	highest      atomic.Uint32 // extended number of the newest packet that came
	reports      atomic.Uint32 // how many reports there were

	keyframesAsked, repaired atomic.Uint32 // on request of the receiver

	// Tick's alone.
	reported uint64        // packets sent at the last sender report
	metered  uint64        // octets and overhead at the last tick
	aimed    time.Duration // when the target changed last

	sampled sampledSubscription
}

// Subscribe sends the publication's packets to peer from now on.
func (pub *Publication) Subscribe(peer *Peer, cfg SubscriptionConfig) (*Subscription, error) {
	if cfg.PayloadType > 127 || cfg.RepairPayloadType > 127 || cfg.RED > 127 || !cfg.Ext.valid() {
		return nil, fmt.Errorf("subscribe with payload type %d and extension ids %v: out of range", cfg.PayloadType, cfg.Ext)
	}
	sub := &Subscription{
		pub: pub, peer: peer,
		ssrc: cfg.SSRC, payloadType: cfg.PayloadType, red: cfg.RED,
		ext: cfg.Ext, passed: cfg.Ext.passed(), nack: cfg.NACK || pub.cfg.Source.video(),
	}
	if cfg.Ext.MID != 0 && cfg.MID != "" && len(cfg.MID) <= maxMID {
		sub.mid = cfg.MID
	}
	if cfg.Repair != 0 && cfg.RepairPayloadType != 0 && pub.cfg.Source.video() {
		sub.repair, sub.repairType, sub.repairSeq = cfg.Repair, cfg.RepairPayloadType, firstRepair()
	}
	if pub.cfg.Source.video() {
		sub.view = &view{now: target{layer: -1}, vp8: pub.cfg.Codec == codec.VP8}
		sub.target.Store(pub.startTarget().pack())
		sub.current.Store(target{layer: -1}.pack())
	}
	pub.needs(sub)
	if err := peer.subscribe(sub); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	if err := pub.addSubscription(sub); err != nil {
		peer.unsubscribe(sub)
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	if sub.closed.Load() { // its peer was, before the publication knew of it
		pub.removeSubscription(sub)
		return nil, fmt.Errorf("subscribe: %w", ErrClosed)
	}
	pub.RequestKeyframe()
	return sub, nil
}

// Close ends the subscription: no packet is sent after it returns, but for those that another
// goroutine is writing at that moment.
func (sub *Subscription) Close() {
	sub.closing.Do(func() {
		sub.closed.Store(true)
		sub.pub.removeSubscription(sub)
		sub.peer.unsubscribe(sub)
	})
}

// SubscriptionStats are what is known of a subscription's packets.
type SubscriptionStats struct {
	Packets uint64 // sent, each counted once
	Octets  uint64 // of their payload

	// From the receiver's last report; zero before it.
	FractionLost float64 // in the interval before it, 0 to 1
	Lost         int32   // packets in all
	Jitter       uint32  // in units of the codec's clock
	RoundTrip    time.Duration
}

// Stats returns what is known so far.
func (sub *Subscription) Stats() SubscriptionStats {
	return SubscriptionStats{
		Packets:      sub.packets.Load(),
		Octets:       sub.octets.Load(),
		FractionLost: float64(sub.fractionLost.Load()) / 256,
		Lost:         sub.lost.Load(),
		Jitter:       sub.jitter.Load(),
		RoundTrip:    time.Duration(sub.roundTrip.Load()),
	}
}

// accepts reports whether packet number of a sound is to be sent. Packets older than the first one
// sent are not: they might lie on the other side of a roll-over that the receiver knows nothing of.
func (sub *Subscription) accepts(number uint64) bool {
	if !sub.started {
		if uint16(number) >= 1<<16-rollOverGuard {
			return false
		}
		sub.started, sub.first = true, number
	}
	return number >= sub.first
}

// Layer is what a subscription sends of a video.
type Layer struct {
	Stream            int // index of the publication's RIDs; -1: nothing
	Spatial, Temporal int // highest ones of the stream
}

// Layer returns what is being sent of a video.
func (sub *Subscription) Layer() Layer {
	t := unpackTarget(sub.current.Load())
	return Layer{Stream: int(t.layer), Spatial: int(t.spatial), Temporal: int(t.temporal)}
}

// send writes a packet for the receiver at path for the first time, as s says, and remembers it.
func (sub *Subscription) send(r *reader, path netio.Path, p *packet, s *sent) {
	sub.stamp(s, r.now)
	n := sub.write(r.out, path, p, s, &r.scratch)
	if n == 0 {
		r.counts.drop(DropEncrypt)
		return
	}
	r.sent++
	r.octets += uint64(p.octets())
	r.counts.BytesOut += uint64(n)
	sub.noteSent(s.transport, n, r.now, false)
	if sub.nack {
		sub.logged().add(s, n)
	}
}
