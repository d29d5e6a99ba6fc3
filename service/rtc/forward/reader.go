package forward

import (
	"errors"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/netio"
)

// reader is the plane's half of one reading goroutine, which alone uses it. It implements
// netio.Reader.
type reader struct {
	plane *Plane
	out   *netio.Batch

	// Of this batch.
	now     time.Duration // 0: not asked for yet
	packets []packet
	runs    []run

	// The endpoint of the last packet: packets come in groups, and Known comes before Receive.
	path netio.Path
	peer *Peer

	counts counts
	asked  int // entries of NACKs in this RTCP packet

	// For pion/srtp, which parses headers once more.
	scratch     rtp.Header
	scratchRTCP rtcp.Header

	rtcp []byte // memory for what is asked of senders
}

// packet is a decrypted packet that waits for the end of its batch. Its bytes are the reader's.
type packet struct {
	bytes     []byte // header with twccBlock, to be overwritten, and payload
	number    uint64 // extended sequence number
	timestamp uint32
	flags     uint8 // first byte of the header: the padding bit
	marker    uint8 // second byte of the header: the marker bit
	next      int   // index of the next packet of the run; 0: none
}

// octets returns the length of the payload.
func (p *packet) octets() int { return len(p.bytes) - fixedHeader - twccBlock }

// run is the packets of one publication in a batch, in the order they came.
type run struct {
	pub         *Publication
	first, last int // indices in reader.packets
	n           int
	octets      uint64 // of payload
}

// Known reports whether path is that of an attached peer.
func (r *reader) Known(path netio.Path) bool { return r.lookup(path) != nil }

// lookup returns the peer of path, nil if there is none.
func (r *reader) lookup(path netio.Path) *Peer {
	if r.peer == nil || path != r.path {
		r.path, r.peer = path, (*r.plane.byPath.Load())[path]
	}
	return r.peer
}

// Receive takes one SRTP or SRTCP packet. It is overwritten, and used until Flush.
func (r *reader) Receive(b []byte, from netio.Path) {
	if r.now == 0 {
		r.now = max(1, r.plane.clock())
	}
	report := isRTCP(b)
	if report {
		r.counts.RTCPIn++
	} else {
		r.counts.PacketsIn++
		r.counts.BytesIn += uint64(len(b))
	}
	switch peer := r.lookup(from); {
	case peer == nil:
		r.counts.drop(DropUnknownPath)
	case len(b) > maxPacket:
		r.counts.drop(DropMalformed)
	case report:
		r.receiveRTCP(peer, b)
	default:
		r.receiveRTP(peer, b)
	}
}

// receiveRTP decrypts an RTP packet and queues it for the fan-out.
func (r *reader) receiveRTP(peer *Peer, b []byte) {
	var h header
	if !h.parse(b) {
		r.counts.drop(DropMalformed)
		return
	}
	peer.mu.Lock()
	st, fresh, plain, why := r.accept(&peer.in, &h, b)
	if st == nil {
		peer.mu.Unlock()
		r.counts.drop(why)
		return
	}
	pub := st.section.pub
	heard, told := r.note(&peer.in, st, pub, &h, plain)
	number, timestamp, why := uint64(0), uint32(0), DropUnbound
	if pub != nil {
		number, timestamp, why = pub.number(st, fresh, &h, r.now)
	}
	var hook Stream
	if told = (told || fresh) && peer.hook != nil; told {
		hook = st.describe(&h)
	}
	peer.mu.Unlock()

	if told {
		peer.hook(hook)
	}
	if heard {
		pub.postVoice()
	}
	if why != numDrops {
		r.counts.drop(why)
		return
	}
	p := packet{bytes: align(b, plain, h.payload), number: number, timestamp: timestamp, marker: b[1] & 0x80}
	if h.padding {
		p.flags = 0x20
	}
	r.queue(pub, p)
}

// accept verifies and decrypts b in place, and returns the stream it is of. fresh reports that
// it is the stream's first packet. The stream is nil for a packet that is to be dropped. Bytes
// that do not verify change nothing. It is called with the peer's mu held.
func (r *reader) accept(in *inbound, h *header, b []byte) (st *stream, fresh bool, plain []byte, why Drop) {
	if in.srtp == nil {
		return nil, false, nil, DropUnknownPath
	}
	if len(b) < h.payload+in.tag {
		return nil, false, nil, DropMalformed
	}
	st = in.find(h.ssrc)
	if st == nil && !in.admits(h.ssrc, r.now) {
		return nil, false, nil, DropUnknownSSRC
	}
	plain, err := in.srtp.DecryptRTP(b, b, &r.scratch)
	if err != nil {
		return nil, false, nil, refusal(err)
	}
	// The session pays for authentic packets alone: forged ones must not use up its rate.
	if !in.packets.take(1, maxPackets, r.now) || !in.bits.take(len(b)*8, maxBits, r.now) {
		return nil, false, nil, DropRate
	}
	if !h.paddingFits(plain) {
		return nil, false, nil, DropPadding
	}
	if st == nil {
		if st = in.admit(h, plain, r.now); st == nil {
			return nil, false, nil, DropUnknownSSRC
		}
	}
	rate := st.section.clockRates[h.pt]
	if rate == 0 {
		return nil, false, nil, DropPayloadType
	}
	fresh = !st.started
	st.clockRate = rate
	return st, fresh, plain, 0
}

// note does the book-keeping for an accepted packet, and reports whether it turned the voice on
// or off, and whether it told the stream's RID. It is called with the peer's mu held.
func (r *reader) note(in *inbound, st *stream, pub *Publication, h *header, plain []byte) (heard, told bool) {
	st.packet(h.seq, h.timestamp, r.now)
	if h.profile == 0 {
		return false, false
	}
	s := st.section
	h.elements(plain, func(id uint8, value []byte) {
		switch {
		case id == s.Ext.AudioLevel && len(value) == 1 && pub != nil:
			heard = pub.hear(value[0]&0x7f, r.now)
		case id == s.Ext.TWCC && len(value) == 2:
			if in.arrivals == nil {
				in.arrivals = new(arrivals)
			}
			in.arrivals.record(uint16(value[0])<<8|uint16(value[1]), h.ssrc, r.now)
		case id == s.Ext.RID && st.rid == "" && len(value) > 0:
			st.rid, told = string(value), true
		}
	})
	return heard, told
}

// align returns the packet with room for our own longest header before the payload. If the
// sender's was shorter the payload moves into the place of the tag, which is longer than that.
func align(b, plain []byte, payload int) []byte {
	const room = fixedHeader + twccBlock
	if payload >= room {
		return plain[payload-room:]
	}
	end := room + copy(b[room:], plain[payload:])
	return b[:end]
}

// queue adds a packet to its publication's run.
func (r *reader) queue(pub *Publication, p packet) {
	i := len(r.packets)
	r.packets = append(r.packets, p)
	for k := len(r.runs) - 1; k >= 0; k-- {
		if run := &r.runs[k]; run.pub == pub {
			r.packets[run.last].next = i
			run.last = i
			run.n++
			return
		}
	}
	r.runs = append(r.runs, run{pub: pub, first: i, last: i, n: 1})
}

// Flush sends the packets of the batch to those who subscribed to them. netio sends what is left
// in the outgoing batch after it.
func (r *reader) Flush() {
	if len(r.runs) > 0 {
		begin := r.plane.clock()
		for i := range r.runs {
			r.fanOut(&r.runs[i])
			r.runs[i].pub.askKeyframe(r.out, r.now, &r.counts)
			r.rtcp = r.runs[i].pub.askMissing(r.out, r.now, r.rtcp, &r.counts)
			end := r.plane.clock()
			if h := r.runs[i].pub.cfg.WriteTime; h != nil {
				h.observe(end-begin, r.runs[i].n)
			}
			begin = end
		}
		clear(r.runs)
		clear(r.packets)
		r.runs, r.packets = r.runs[:0], r.packets[:0]
	}
	if r.now != 0 {
		r.plane.counts.add(&r.counts)
	}
	r.now, r.peer = 0, nil
}

// fanOut writes the packets of one publication, receiver by receiver: packets to one destination
// that follow each other leave in one system call.
func (r *reader) fanOut(run *run) {
	pub := run.pub
	pub.fanning.Lock()
	defer pub.fanning.Unlock()
	subs := *pub.subs.Load()
	if pub.cfg.Source.video() && len(subs) > 0 {
		r.keep(run)
	}
	for _, sub := range subs {
		path := sub.peer.path.Load()
		if path == nil {
			continue
		}
		sent, octets := uint64(0), uint64(0)
		for i := run.first; ; {
			p := &r.packets[i]
			if sub.accepts(p.number) {
				if n := sub.send(r.out, *path, p, &r.scratch); n > 0 {
					sent++
					octets += uint64(p.octets())
					r.counts.BytesOut += uint64(n)
				} else {
					r.counts.drop(DropEncrypt)
				}
			}
			if p.next == 0 {
				break
			}
			i = p.next
		}
		sub.packets.Add(sent)
		sub.octets.Add(octets)
		r.counts.PacketsOut += sent
	}
}

// keep copies the packets of a video into its history. It is called with the publication's
// fanning held.
func (r *reader) keep(run *run) {
	pub := run.pub
	if pub.history == nil {
		pub.history = new(history)
	}
	for i := run.first; ; {
		p := &r.packets[i]
		pub.history.keep(p)
		if i = p.next; i == 0 {
			return
		}
	}
}

// refusal returns why pion/srtp did not decrypt a packet.
func refusal(err error) Drop {
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) {
		return DropAuth
	}
	return DropReplay
}
