package forward

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

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
	pub  *Publication
	peer *Peer // that receives

	ssrc        uint32
	payloadType uint8
	extTWCC     uint8
	closed      atomic.Bool
	closing     sync.Once

	// Guarded by pub.fanning.
	started bool
	context *srtp.Context // its own: contexts are not safe for concurrent use
	first   uint64        // number of the first packet sent
	log     *sendLog      // of a video; else nil

	packets, octets atomic.Uint64 // sent

	// From the receiver's last report.
	fractionLost atomic.Uint32 // of 256
	lost         atomic.Int32  // packets
	jitter       atomic.Uint32 // in timestamp units
	roundTrip    atomic.Int64  // nanoseconds

	reported uint64 // packets sent at the last sender report; Tick's alone
}

// Subscribe sends the publication's packets to peer from now on.
func (pub *Publication) Subscribe(peer *Peer, cfg SubscriptionConfig) (*Subscription, error) {
	if cfg.PayloadType > 127 || !cfg.Ext.valid() {
		return nil, fmt.Errorf("subscribe with payload type %d and extension ids %v: out of range", cfg.PayloadType, cfg.Ext)
	}
	sub := &Subscription{
		pub: pub, peer: peer,
		ssrc: cfg.SSRC, payloadType: cfg.PayloadType, extTWCC: cfg.Ext.TWCC,
	}
	if pub.cfg.Source.video() {
		sub.log = new(sendLog)
	}
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

// accepts reports whether packet number is to be sent. Packets older than the first one sent are
// not: they might lie on the other side of a roll-over that the receiver knows nothing of.
func (sub *Subscription) accepts(number uint64) bool {
	if !sub.started {
		if uint16(number) >= 1<<16-rollOverGuard {
			return false
		}
		sub.started, sub.first = true, number
	}
	return number >= sub.first && !sub.closed.Load()
}

// send writes the packet for the receiver at path, for the first time. It returns the length, 0
// if that failed.
func (sub *Subscription) send(out *netio.Batch, path netio.Path, p *packet, scratch *rtp.Header) (n int) {
	var transport uint16
	if sub.extTWCC != 0 {
		transport = uint16(sub.peer.twccOut.Add(1))
	}
	n = sub.write(out, path, p, transport, scratch)
	if n > 0 && sub.log != nil {
		sub.log.add(p, transport, n)
	}
	return n
}

// write writes the packet with that transport-wide number. The header before the payload is
// overwritten for each receiver, so nothing of the sender's gets through and nothing needs
// restoring. All that it writes follows from the packet's number and its arguments.
func (sub *Subscription) write(out *netio.Batch, path netio.Path, p *packet, transport uint16, scratch *rtp.Header) (n int) {
	var plain []byte
	if sub.extTWCC == 0 {
		plain = p.bytes[twccBlock:]
		plain[0] = 0x80 | p.flags
	} else {
		plain = p.bytes
		plain[0] = 0x90 | p.flags
		binary.BigEndian.PutUint64(plain[12:], profileOneByte<<48|1<<32|
			uint64(sub.extTWCC)<<28|1<<24|uint64(transport)<<8)
	}
	plain[1] = sub.payloadType | p.marker
	binary.BigEndian.PutUint16(plain[2:], uint16(p.number))
	binary.BigEndian.PutUint32(plain[4:], p.timestamp)
	binary.BigEndian.PutUint32(plain[8:], sub.ssrc)
	encrypted, err := sub.context.EncryptRTP(out.Slot(), plain, scratch)
	if err != nil {
		return 0
	}
	out.Commit(len(encrypted), path)
	return len(encrypted)
}
