package forward

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"rtcd/service/rtc/netio"
)

// Packets that are wrong are dropped, each for its reason, and good ones pass after them.
func TestBadPacketsAreDropped(t *testing.T) {
	for name, tt := range map[string]struct {
		why Drop
		bad func(e *endpoint, p *rtp.Packet) []byte
	}{
		"bit of the payload flipped": {DropAuth, func(e *endpoint, p *rtp.Packet) []byte {
			b := e.seal(p)
			b[len(b)-20] ^= 1
			return b
		}},
		"bit of the tag flipped": {DropAuth, func(e *endpoint, p *rtp.Packet) []byte {
			b := e.seal(p)
			b[len(b)-1] ^= 1
			return b
		}},
		"marker flipped": {DropAuth, func(e *endpoint, p *rtp.Packet) []byte {
			b := e.seal(p)
			b[1] ^= 0x80
			return b
		}},
		"other keys": {DropAuth, func(e *endpoint, p *rtp.Packet) []byte { return e.rig.endpoint(gcm).seal(p) }},
		"declared SSRC, forged": {DropAuth, func(e *endpoint, p *rtp.Packet) []byte {
			e.ssrc = 0xdddd
			e.peer.SetUplinks([]Uplink{e.uplink("0"), e.uplink("1")})
			p.SSRC = e.ssrc
			return e.rig.endpoint(gcm).seal(p)
		}},
		"payload type": {DropPayloadType, func(e *endpoint, p *rtp.Packet) []byte {
			p.PayloadType = 63
			return e.seal(p)
		}},
		"SSRC and payload type": {DropUnknownSSRC, func(e *endpoint, p *rtp.Packet) []byte {
			p.SSRC, p.PayloadType = 1, 63
			return e.seal(p)
		}},
		"MID of no section": {DropUnknownSSRC, func(e *endpoint, p *rtp.Packet) []byte {
			p.SSRC = 1
			e.must(p.SetExtension(extMID, []byte("9")))
			return e.seal(p)
		}},
		"15 CSRCs": {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte {
			p.CSRC = make([]uint32, 15)
			return e.seal(p)
		}},
		"15 CSRCs that are not there": {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte {
			b := e.seal(p)[:30]
			b[0] |= 15
			return b
		}},
		"padding longer than the packet": {DropPadding, func(e *endpoint, p *rtp.Packet) []byte {
			p.Payload = append(p.Payload, 0xff)
			plain, err := p.Marshal()
			e.must(err)
			plain[0] |= 0x20
			return e.sealBytes(plain)
		}},
		"no padding in spite of the bit": {DropPadding, func(e *endpoint, p *rtp.Packet) []byte {
			p.Payload = nil
			plain, err := p.Marshal()
			e.must(err)
			plain[0] |= 0x20
			return e.sealBytes(plain)
		}},
		"padding of zero": {DropPadding, func(e *endpoint, p *rtp.Packet) []byte {
			p.Payload = append(p.Payload, 0)
			plain, err := p.Marshal()
			e.must(err)
			plain[0] |= 0x20
			return e.sealBytes(plain)
		}},
		"extension longer than the packet": {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte {
			b := e.seal(p)
			binary.BigEndian.PutUint16(b[14:], 60)
			return b
		}},
		"extension bomb": {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte {
			p.ExtensionProfile, p.Extensions = 0x1234, nil
			e.must(p.SetExtension(0, make([]byte, maxExtension+4)))
			return e.seal(p)
		}},
		"nothing":          {DropMalformed, func(*endpoint, *rtp.Packet) []byte { return nil }},
		"a header's half":  {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte { return e.seal(p)[:6] }},
		"a header alone":   {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte { p.Extension = false; return e.seal(p)[:12] }},
		"no whole tag":     {DropAuth, func(e *endpoint, p *rtp.Packet) []byte { return e.seal(p)[:40] }},
		"version":          {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte { b := e.seal(p); b[0] ^= 0xc0; return b }},
		"too long":         {DropMalformed, func(e *endpoint, p *rtp.Packet) []byte { p.Payload = make([]byte, 1490); return e.seal(p) }},
		"RTCP, no header":  {DropMalformed, func(*endpoint, *rtp.Packet) []byte { return []byte{0x80, 200, 0, 0} }},
		"RTCP, no tag":     {DropMalformed, func(*endpoint, *rtp.Packet) []byte { return []byte{0x80, 200, 0, 1, 0, 0, 0, 1, 0, 0} }},
		"RTCP, other keys": {DropAuth, func(e *endpoint, _ *rtp.Packet) []byte { return sealedReport(e.rig.endpoint(gcm)) }},
		"RTCP, lengths":    {DropMalformed, func(e *endpoint, _ *rtp.Packet) []byte { return e.sealRTCP([]byte{0x80, 201, 0, 9, 0, 0, 0, 1}) }},
		"RTCP, padding":    {DropMalformed, func(e *endpoint, _ *rtp.Packet) []byte { return e.sealRTCP([]byte{0xa0, 201, 0, 1, 0, 0, 0, 9}) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
			listener.subscribe(speaker.publish(PublicationConfig{}))
			sent := speaker.say(3)
			p := speaker.next(0)
			speaker.seq--
			b := tt.bad(speaker, p)
			before := r.plane.Stats().Drops
			speaker.push(b)
			after := r.plane.Stats().Drops
			before[tt.why]++
			if before != after {
				t.Errorf("drops %v, want %v", after, before)
			}
			speaker.ssrc = sent[0].SSRC
			if tt.why != DropPadding && tt.why != DropPayloadType { // their number is used
				sent = append(sent, speaker.say(1)...)
			} else {
				speaker.seq++
				sent = append(sent, speaker.say(1)...)
			}
			wantPackets(t, listener.heard(), sent)
		})
	}
}

func sealedReport(e *endpoint) []byte {
	plain, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
	e.must(err)
	return e.sealRTCP(plain)
}

func (e *endpoint) sealRTCP(plain []byte) []byte {
	e.t.Helper()
	b, err := e.enc.EncryptRTCP(nil, plain, nil)
	e.must(err)
	return b
}

func TestReplayedPacketsAreDropped(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	b := speaker.seal(speaker.next(1))
	speaker.push(b)
	speaker.push(b)
	speaker.say(replayRTP + 10)
	speaker.push(b)
	again := sealedReport(speaker)
	speaker.push(again)
	speaker.push(again)
	if n := len(listener.heard()); n != 1+replayRTP+10 || r.drops(DropReplay) != 3 {
		t.Errorf("%d packets arrived, %d dropped as replayed, want %d and 3", n, r.drops(DropReplay), 1+replayRTP+10)
	}
}

// Nothing is received from addresses that ICE did not select, whatever it is.
func TestUnknownPaths(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	b := speaker.seal(speaker.next(1))
	strangers := []netio.Path{
		{},
		netio.NewPath(1, speaker.path.Remote(), false),
		netio.NewPath(0, speaker.path.Remote(), true),
		netio.NewPath(0, listener.path.Remote(), false), // known, with other keys
	}
	for _, path := range strangers {
		r.read.Receive(bytes.Clone(b), path)
		r.flush()
	}
	if n := len(listener.heard()); n != 0 {
		t.Errorf("%d packets from a wrong source were forwarded", n)
	}
	if u, a := r.drops(DropUnknownPath), r.drops(DropUnknownSSRC)+r.drops(DropAuth); u != 3 || a != 1 {
		t.Errorf("%d dropped as of unknown paths, %d for their keys, want 3 and 1", u, a)
	}
	speaker.push(b)
	if n := len(listener.heard()); n != 1 {
		t.Errorf("%d packets arrived from the right source, want 1", n)
	}
}

// Bytes that do not verify leave no trace, however many SSRCs they claim.
func TestForgeriesLeaveNoState(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	e.say(1)
	b := e.seal(e.next(0))
	for i := range 10_000 {
		binary.BigEndian.PutUint32(b[8:], uint32(0x10000+i))
		e.push(b)
	}
	forged := sealedReport(e)
	forged[len(forged)-8] ^= 1
	for i := range 10_000 {
		binary.BigEndian.PutUint32(forged[4:], uint32(i))
		e.push(forged)
	}
	in := &e.peer.in
	if in.n != 1 || len(in.seen) != 0 || len(in.senders) != 0 || in.pending != [maxPending]pendingSSRC{} {
		t.Errorf("%d streams, %d SSRCs, %d senders, pending %v", in.n, len(in.seen), len(in.senders), in.pending)
	}
	if n := r.drops(DropAuth); n != 20_000 {
		t.Errorf("%d packets dropped for their tags, want 20,000", n)
	}
	if n := r.drops(DropRate); n != 0 {
		t.Errorf("%d packets dropped for the rate: forgeries use it up", n)
	}
}

// An endpoint may send on few SSRCs at a time, and on a bounded number in its life.
func TestNumberOfSSRCsIsBounded(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	send := func(ssrc uint32, pt uint8) {
		p := e.next(0)
		p.SSRC, p.PayloadType = ssrc, pt
		e.push(e.seal(p))
	}
	for i := range uint32(10) {
		send(100+i, 63) // of no section
	}
	if n := len(e.peer.in.seen); n != maxPending {
		t.Errorf("%d SSRCs of no section, want %d", n, maxPending)
	}
	r.advance(quietTime)
	for i := range uint32(maxStreams + 5) {
		send(200+i, opus)
	}
	if n := e.peer.in.n; n != maxStreams {
		t.Errorf("%d streams, want %d", n, maxStreams)
	}
	r.advance(quietTime)
	send(300, opus)
	if e.peer.in.n != maxStreams || e.peer.in.find(300) == nil {
		t.Error("a quiet stream does not make room for a new one")
	}
	for i := range uint32(2 * maxSSRCs) {
		r.advance(quietTime)
		send(1000+i, opus)
	}
	if n := len(e.peer.in.seen); n != maxSSRCs {
		t.Errorf("%d SSRCs in a session's life, want %d", n, maxSSRCs)
	}
	r.advance(quietTime)
	send(e.ssrc, opus)
	if e.peer.in.find(e.ssrc) == nil {
		t.Error("a declared SSRC is shut out by undeclared ones")
	}
}

func TestRateIsLimited(t *testing.T) {
	r := newRig(t)
	flood, speaker, listener := r.endpoint(gcm), r.endpoint(gcm), r.endpoint(gcm)
	floods := listener.subscribe(flood.publish(PublicationConfig{}))
	listener.subscribe(speaker.publish(PublicationConfig{}))
	var want []*rtp.Packet
	for range 10_000 {
		flood.push(flood.seal(flood.next(0)))
	}
	want = append(want, speaker.say(10)...)
	n := 0
	var got []*rtp.Packet
	for _, p := range listener.heard() {
		if p.SSRC == floods.ssrc {
			n++
		} else {
			got = append(got, p)
		}
	}
	if n != maxPackets || r.drops(DropRate) != 10_000-maxPackets {
		t.Errorf("%d packets of the flood arrived, %d dropped, want %d, %d", n, r.drops(DropRate), maxPackets, 10_000-maxPackets)
	}
	wantPackets(t, got, want)

	r.advance(time.Second)
	const size = 1200
	sent := 0
	for range 2000 {
		p := flood.next(0)
		p.Payload = make([]byte, size)
		b := flood.seal(p)
		sent += len(b) * 8
		flood.push(b)
	}
	arrived := len(listener.heard()) * (sent / 2000)
	if arrived > maxBits || arrived < maxBits*99/100 {
		t.Errorf("%d bits arrived, want %d", arrived, maxBits)
	}
}

// Real packets with anything changed, before and after encryption. None that is not what the
// speaker sent gets through, and the session goes on.
func TestMutations(t *testing.T) {
	seed := [32]byte{1, 2, 3}
	random := rand.New(rand.NewChaCha8(seed))
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	mutate := func(b []byte) []byte {
		for range 1 + random.IntN(4) {
			switch i := random.IntN(len(b)); random.IntN(4) {
			case 0:
				b[i] ^= 1 << random.IntN(8)
			case 1:
				b[i] = byte(random.Uint32())
			case 2:
				b = b[:i+1]
			case 3:
				b = append(b, b[i])
			}
		}
		return b
	}
	for range 20_000 {
		b := speaker.seal(speaker.next(1))
		whole := bytes.Clone(b)
		if b = mutate(b); bytes.Equal(b, whole) {
			continue
		}
		speaker.push(b)
	}
	if got := listener.heard(); len(got) != 0 {
		t.Fatalf("seed %v: %d mutated packets were forwarded, such as %v", seed, len(got), got[0])
	}
	for range 20_000 {
		r.advance(time.Millisecond)
		p := speaker.next(1)
		plain, err := p.Marshal()
		speaker.must(err)
		b, err := speaker.enc.EncryptRTP(nil, mutate(plain), nil)
		if err != nil {
			continue
		}
		speaker.push(b)
		speaker.push(mutate(sealedReport(speaker)))
	}
	for _, b := range r.take(listener.path) {
		if _, err := listener.dec.DecryptRTP(nil, b, nil); err != nil {
			t.Fatalf("seed %v: a forwarded packet does not decrypt: %v", seed, err)
		}
	}
	speaker.seq += 1000
	r.advance(10 * time.Second)
	sent := speaker.say(20)
	got := listener.heard()
	for i, p := range got {
		if !bytes.Equal(p.Payload, sent[i].Payload) {
			t.Fatalf("seed %v: payload %q, want %q", seed, p.Payload, sent[i].Payload)
		}
	}
	if len(got) != len(sent) {
		t.Fatalf("seed %v: %d packets arrive after the mutations, want %d", seed, len(got), len(sent))
	}
}

func FuzzReceive(f *testing.F) {
	for _, ext := range []bool{false, true} {
		p := &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: opus, SSRC: 0x1001}, Payload: []byte("voice")}
		if ext {
			_ = p.SetExtension(extLevel, []byte{30})
			_ = p.SetExtension(extTWCC, []byte{0, 1})
			_ = p.SetExtension(extMID, []byte("0"))
		}
		b, _ := p.Marshal()
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Add([]byte{0x9f, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff}, false)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		r := newRig(t)
		speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
		listener.subscribeAs(speaker.publish(PublicationConfig{}), SubscriptionConfig{SSRC: 7, PayloadType: 96, Ext: Extensions{TWCC: 5}})
		want := 0
		if sealed {
			var err error
			if b, err = speaker.enc.EncryptRTP(nil, b, nil); err != nil {
				return
			}
			want = 1
		}
		speaker.push(b)
		r.tick()
		got := listener.heard()
		if len(got) > want {
			t.Fatalf("%d packets arrived of bytes that do not verify", len(got))
		}
		for _, p := range got {
			if p.SSRC != 7 || p.PayloadType != 96 || !bytes.Equal(p.GetExtensionIDs(), []byte{5}) || len(p.CSRC) != 0 {
				t.Fatalf("packet %v arrived", p)
			}
		}
	})
}

func FuzzRTCP(f *testing.F) {
	for _, p := range []rtcp.Packet{
		&rtcp.SenderReport{SSRC: 0x1001, Reports: []rtcp.ReceptionReport{{SSRC: 7}}},
		&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 7, LastSenderReport: 5}}},
		&rtcp.PictureLossIndication{MediaSSRC: 7},
		&rtcp.FullIntraRequest{FIR: []rtcp.FIREntry{{SSRC: 7}}},
		&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: 500, LostPackets: 0xf0f0}, {PacketID: 501}}},
		&rtcp.Goodbye{Sources: []uint32{1}},
	} {
		b, _ := p.Marshal()
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		r := newRig(t)
		e := r.endpoint(gcm)
		e.subscribeAs(e.publish(PublicationConfig{Source: Camera}), SubscriptionConfig{SSRC: 7})
		e.say(20)
		if sealed {
			if len(b) < 8 || b[0]>>6 != 2 || !isRTCP(b) {
				return
			}
			b = e.sealRTCP(b)
		}
		e.push(b)
		r.second()
		e.told()
	})
}
