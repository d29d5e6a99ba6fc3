package forward

import (
	"encoding/binary"
	"time"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/netio"
)

// sent is what a packet became for a receiver. Its header and what is changed of its payload
// follow from it and from the packet as it is kept: so it can be sent again, bit by bit.
type sent struct {
	number    uint32 // sequence number, low half of the extended one
	source    uint32 // number in its layer, likewise
	timestamp uint32
	transport uint16 // transport-wide number
	picture   uint16 // picture id
	frame     uint16 // frame number of the dependency descriptor
	base      uint8  // TL0PICIDX
	layer     uint8
	marker    uint8
	times     uint8   // that it was sent; 0: there is no such packet
	empty     bool    // it has no payload
	sendTime  [3]byte // abs-send-time
}

// stamp gives the packet that is about to be sent a place in the transport's order.
func (sub *Subscription) stamp(s *sent, now time.Duration) {
	switch {
	case sub.ext.TWCC != 0:
		s.transport = uint16(sub.peer.twccOut.Add(1))
	case sub.ext.SendTime != 0:
		s.sendTime = absSendTime(now)
	}
}

// absSendTime returns the time as 24 bits: seconds modulo 64, with 18 bits of fraction.
func absSendTime(now time.Duration) [3]byte {
	t := uint32((uint64(now%(64*time.Second)) << 18) / uint64(time.Second))
	return [3]byte{byte(t >> 16), byte(t >> 8), byte(t)}
}

// write encrypts packet p for the receiver at path, as s says, and returns its length, 0 if that
// failed. Header and picture ids are written anew for each receiver, so nothing of the sender's
// gets through that is not meant to, and nothing needs restoring.
func (sub *Subscription) write(out *netio.Batch, path netio.Path, p *packet, s *sent, scratch *scratch) (n int) {
	b, head := p.bytes, p.head
	pt := sub.payloadType
	if p.redundant {
		if sub.red != 0 {
			pt = sub.red
		} else if b = sub.newest(p); b == nil {
			return 0
		}
	}
	if pic := &p.desc.Picture; pic.At != 0 {
		pic.Put(b[head:], s.picture, s.base)
	}
	plain := sub.header(b, head, p.elements, s, p.desc.HasFrame)
	plain[0] |= p.flags
	plain[1] = pt | s.marker
	binary.BigEndian.PutUint16(plain[2:], uint16(s.number))
	binary.BigEndian.PutUint32(plain[4:], s.timestamp)
	binary.BigEndian.PutUint32(plain[8:], sub.ssrc)
	return sub.encrypt(out, path, plain, scratch)
}

func (sub *Subscription) encrypt(out *netio.Batch, path netio.Path, plain []byte, scratch *scratch) (n int) {
	slot := out.Slot()
	if sub.sealer == nil {
		encrypted, err := sub.context.EncryptRTP(slot, plain, &scratch.header)
		if err != nil {
			return 0
		}
		n = len(encrypted)
	} else {
		numbers := &sub.numbers
		if binary.BigEndian.Uint32(plain[8:]) != sub.ssrc {
			numbers = &sub.repairs
		}
		index, ok := numbers.index(binary.BigEndian.Uint16(plain[2:]))
		if !ok {
			return 0
		}
		n = sub.sealer.seal(slot, plain, index, &scratch.nonce)
	}
	out.Commit(n, path)
	return n
}

// newest returns a copy of p, with its head, that has only what is newest of redundant audio; nil
// if that cannot be told.
func (sub *Subscription) newest(p *packet) []byte {
	primary, ok := codec.REDPrimary(p.payload())
	if !ok || p.flags != 0 && int(primary[len(primary)-1]) > len(primary) { // padding begins before it
		return nil
	}
	return sub.moved(primary, 0, p.head)
}

// moved returns a copy of what b has from head on, with that much room before it. It is good until
// the next one is made; b may be the last one.
func (sub *Subscription) moved(b []byte, head, room int) []byte {
	if sub.scratch == nil {
		sub.scratch = make([]byte, maxSlot+maxElements)
	}
	return sub.scratch[:room+copy(sub.scratch[room:], b[head:])]
}

// header writes the first byte of the header and the extensions before the payload, which is at
// head, and returns the packet. The rest of the fixed header is up to the caller. A packet from
// before the receiver's needs were known, or with longer elements than expected, is moved to where
// there is room.
func (sub *Subscription) header(b []byte, head int, elements []byte, s *sent, framed bool) (plain []byte) {
	const usual = fixedHeader + twccBlock
	if len(elements) == 0 && sub.mid == "" && sub.ext.TWCC != 0 && head >= usual { // most sounds
		plain = b[head-usual:]
		plain[0] = 0x90
		binary.BigEndian.PutUint64(plain[fixedHeader:], profileOneByte<<48|1<<32|
			uint64(sub.ext.TWCC)<<28|1<<24|uint64(s.transport)<<8)
		return plain
	}
	n, count, wide := 0, 0, false
	if sub.ext.TWCC != 0 {
		n, count = transportRoom, 1
	} else if sub.ext.SendTime != 0 {
		n, count = sendTimeRoom, 1
	}
	if sub.mid != "" {
		n, count = n+1+len(sub.mid), count+1
	}
	for e := elements; len(e) > 0; e = e[2+int(e[1]):] {
		if sub.passed[e[0]] != 0 {
			n, count = n+1+int(e[1]), count+1
			wide = wide || e[1] == 0 || e[1] > 16
		}
	}
	if n == 0 {
		plain = b[head-fixedHeader:]
		plain[0] = 0x80
		return plain
	}
	profile := uint16(profileOneByte)
	if wide {
		n += count
		profile = profileTwoByte
	}
	words := (n + 3) / 4
	if room := fixedHeader + 4 + 4*words; head < room {
		b, head = sub.moved(b, head, room), room
	}
	plain = b[head-fixedHeader-4-4*words:]
	plain[0] = 0x90
	binary.BigEndian.PutUint32(plain[fixedHeader:], uint32(profile)<<16|uint32(words))
	x := extensionWriter{b: plain[fixedHeader+4 : fixedHeader+4+4*words], wide: wide}
	if sub.ext.TWCC != 0 {
		v := x.element(sub.ext.TWCC, 2)
		v[0], v[1] = byte(s.transport>>8), byte(s.transport)
	} else if sub.ext.SendTime != 0 {
		copy(x.element(sub.ext.SendTime, 3), s.sendTime[:])
	}
	if sub.mid != "" {
		copy(x.element(sub.ext.MID, len(sub.mid)), sub.mid)
	}
	for e := elements; len(e) > 0; e = e[2+int(e[1]):] {
		if id := sub.passed[e[0]]; id != 0 {
			v := x.element(id, int(e[1]))
			copy(v, e[2:])
			if e[0] == kindDependency && framed {
				binary.BigEndian.PutUint16(v[1:], s.frame)
			}
		}
	}
	clear(x.b)
	return plain
}

// extensionWriter writes header extensions (RFC 8285).
type extensionWriter struct {
	b    []byte // that is left
	wide bool   // two-byte headers
}

// element returns the place for the value of an extension.
func (x *extensionWriter) element(id uint8, length int) (value []byte) {
	if x.wide {
		x.b[0], x.b[1] = id, byte(length)
		value, x.b = x.b[2:2+length], x.b[2+length:]
		return value
	}
	x.b[0] = id<<4 | byte(length-1)
	value, x.b = x.b[1:1+length], x.b[1+length:]
	return value
}
