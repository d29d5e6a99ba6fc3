package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
	"rtcd/service/rtc/netio"
)

// theirIDs are the ids that a sender gave its extensions.
var theirIDs = Extensions{
	MID: 1, RID: 2, RepairRID: 3, AudioLevel: 4, TWCC: 5, SendTime: 6, Delay: 7, Capture: 8, Rotation: 9, Dependency: 10,
}

// element appends an extension element with a one-byte or two-byte header.
func element(b []byte, profile uint16, id uint8, value []byte) []byte {
	if profile == profileOneByte {
		return append(append(b, id<<4|uint8(len(value)-1)), value...)
	}
	return append(append(b, id, uint8(len(value))), value...)
}

// extended returns the endpoint's next video packet with that extension block, sealed. Profile 0:
// without one. It returns nil if pion/srtp refuses the block, which it does on our side as well.
func (e *endpoint) extended(profile uint16, block, payload []byte) []byte {
	e.t.Helper()
	b := []byte{0x80, vp8}
	b = binary.BigEndian.AppendUint16(b, e.seq)
	b = binary.BigEndian.AppendUint32(b, e.ts)
	b = binary.BigEndian.AppendUint32(b, e.ssrc)
	if profile != 0 {
		b[0] |= 0x10
		block = append(bytes.Clone(block), make([]byte, -len(block)&3)...)
		b = binary.BigEndian.AppendUint16(b, profile)
		b = binary.BigEndian.AppendUint16(b, uint16(len(block)/4))
		b = append(b, block...)
	}
	e.seq++
	e.ts += 3000
	sealed, err := e.enc.EncryptRTP(nil, append(b, payload...), nil)
	if err != nil {
		return nil
	}
	return sealed
}

// extensionCamera returns an endpoint with a camera whose section has theirIDs, and its publication.
func (r *rig) extensionCamera(profile srtp.ProtectionProfile) (*endpoint, *Publication) {
	r.t.Helper()
	e := r.endpoint(profile)
	up := e.videoUplink()
	up.Ext, up.RIDs = theirIDs, []string{"secret"}
	e.peer.SetUplinks([]Uplink{up})
	return e, e.publish(PublicationConfig{Source: Camera, RIDs: up.RIDs, Codec: codec.VP8})
}

// extensionReceivers are receivers that agreed on this and that.
var extensionReceivers = map[string]SubscriptionConfig{
	"nothing": {},
	"the same": {MID: "0", Ext: Extensions{
		MID: 1, RID: 2, RepairRID: 3, AudioLevel: 4, TWCC: 5, SendTime: 6, Delay: 7, Capture: 8, Rotation: 9, Dependency: 10,
	}},
	"other ids": {MID: "12345678", Ext: Extensions{
		MID: 14, RID: 13, RepairRID: 12, AudioLevel: 11, TWCC: 10, SendTime: 9, Delay: 8, Capture: 7, Rotation: 6, Dependency: 5,
	}},
	"time of sending":           {Ext: Extensions{SendTime: 3, AudioLevel: 1, Delay: 2, Capture: 4, Rotation: 5, Dependency: 6}},
	"time of sending and a MID": {MID: "a", Ext: Extensions{SendTime: 3, MID: 9, Dependency: 6}},
	"dependency alone":          {Ext: Extensions{Dependency: 1}},
	"MID alone":                 {MID: "video", Ext: Extensions{MID: 2}},
	"MID that is too long":      {MID: "123456789", Ext: Extensions{MID: 2, Rotation: 3}},
	"two":                       {Ext: Extensions{Rotation: 14, Delay: 13}},
}

// wantExtensions checks that p has what the receiver agreed on of values, by the sender's id, and
// what we write ourselves; nothing else.
func wantExtensions(t *testing.T, p *rtp.Packet, cfg *SubscriptionConfig, values map[uint8][]byte, transport uint16, now time.Duration) {
	t.Helper()
	want := make(map[uint8][]byte)
	for kind, id := range cfg.Ext.passed() {
		if value, ok := values[theirIDs.passed()[kind]]; ok && id != 0 {
			want[id] = value
		}
	}
	switch ext := &cfg.Ext; {
	case ext.TWCC != 0:
		want[ext.TWCC] = binary.BigEndian.AppendUint16(nil, transport)
	case ext.SendTime != 0:
		want[ext.SendTime] = binary.BigEndian.AppendUint32(nil, uint32(now.Seconds()*(1<<18)))[1:]
	}
	if cfg.MID != "" && len(cfg.MID) <= 8 && cfg.Ext.MID != 0 {
		want[cfg.Ext.MID] = []byte(cfg.MID)
	}
	ids := p.GetExtensionIDs()
	if p.Extension != (len(want) > 0) || len(ids) != len(want) {
		t.Fatalf("extensions %v, want %v", ids, want)
	}
	for id, value := range want {
		if got := p.GetExtension(id); !slices.Contains(ids, id) || !bytes.Equal(got, value) {
			t.Fatalf("extension %d is %x, want %x of %v", id, got, value, want)
		}
	}
}

// Packets with headers of all lengths, in one batch, to receivers with other ones.
func TestExtensionsPassUnderTheReceiversIDs(t *testing.T) {
	structure := codectest.NewWriter(codectest.L3T3, 500).Picture(true)
	longest := structure[0].Packet(true, false)
	upper := structure[1].Packet(true, true)
	if len(longest) < 17 || len(longest) > 255 {
		t.Fatalf("a structure of %d bytes: the test is wrong", len(longest))
	}
	id := theirIDs
	packets := []map[uint8][]byte{
		{},
		{id.AudioLevel: {0x85}, id.Rotation: {1}, id.Delay: {1, 2, 3}, id.Capture: {1, 2, 3, 4, 5, 6, 7, 8}, id.Dependency: upper},
		{id.Capture: bytes.Repeat([]byte{9}, 16)},
		{id.Dependency: longest},
		{id.Dependency: longest, id.AudioLevel: {7}, id.Capture: bytes.Repeat([]byte{9}, 16), id.Delay: {4, 5, 6}, id.Rotation: {3}},
		{id.Dependency: {}},
		{id.Rotation: {2}, id.Capture: {}, id.Delay: {}},
		{id.MID: []byte("secretly"), id.RID: []byte("secret"), id.RepairRID: []byte("secret"), id.TWCC: {77, 78}, id.SendTime: {79, 80, 81}},
		{id.MID: []byte("secretly"), id.TWCC: {77, 78}, id.Rotation: {3}, 11: []byte("unknown"), 14: []byte("secret")},
		{id.Rotation: {1}, 200: bytes.Repeat([]byte("unknown"), 20)},
	}
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		for _, size := range []int{1, 30, 1100} {
			t.Run(fmt.Sprintf("%s/%d", profile, size), func(t *testing.T) {
				r := newRig(t)
				speaker, pub := r.extensionCamera(profile)
				// What a descriptor tells is of no matter here.
				viewers := make(map[string]*endpoint)
				subs := make(map[string]*Subscription)
				for name, cfg := range extensionReceivers {
					v := r.endpoint(profile)
					cfg.SSRC, cfg.PayloadType = v.peer.NewSSRC(), 96
					viewers[name], subs[name] = v, v.subscribeAs(pub, cfg)
				}
				speaker.push(speaker.extended(0, nil, []byte("begins the stream")))
				for _, v := range viewers {
					v.heard()
				}
				start := speaker.seq
				var payloads [][]byte
				for round := range 8 {
					for i := range len(packets) {
						values := packets[(i*3+round)%len(packets)]
						profile, block := uint16(profileOneByte), []byte(nil)
						for _, v := range values {
							if len(v) == 0 || len(v) > 16 {
								profile = profileTwoByte | 3
							}
						}
						for _, id := range slices.Sorted(maps.Keys(values)) {
							if i%3 == 1 {
								block = append(block, 0)
							}
							block = element(block, profile, id, values[id])
						}
						if len(values) == 0 && round%2 == 0 {
							profile = 0
						}
						payload := bytes.Repeat([]byte{byte(16*i + round)}, size)
						payloads = append(payloads, payload)
						r.read.Receive(speaker.extended(profile, block, payload), speaker.path)
					}
					r.flush()
				}
				now := r.clock().Sub(r.plane.start)
				first := make(map[string]map[uint16][]byte)
				for name, v := range viewers {
					cfg := extensionReceivers[name]
					first[name] = make(map[uint16][]byte)
					media, _ := v.sent()
					if len(media) != len(payloads) {
						t.Fatalf("%s: %d packets arrived, want %d", name, len(media), len(payloads))
					}
					for i, b := range media {
						first[name][wireSeq(b)] = b
						plain, err := v.dec.DecryptRTP(nil, b, nil)
						v.must(err)
						var p rtp.Packet
						v.must(p.Unmarshal(plain))
						if p.SequenceNumber != start+uint16(i) || !bytes.Equal(p.Payload, payloads[i]) {
							t.Fatalf("%s: packet %d is %d, its payload as sent: %v", name, i, p.SequenceNumber, bytes.Equal(p.Payload, payloads[i]))
						}
						round, k := i/len(packets), i%len(packets)
						wantExtensions(t, &p, &cfg, packets[(k*3+round)%len(packets)], uint16(i+2), now)
						if bytes.Contains(plain, []byte("secret")) || bytes.Contains(plain, []byte("unknown")) {
							t.Fatalf("%s: packet %d has what is of the sender's: %q", name, i, plain)
						}
					}
				}
				r.advance(time.Second)
				for name, v := range viewers {
					v.nack(subs[name], start, start+3, start+4, start+25, start+33, start+79)
					again, _ := v.sent()
					if len(again) != 6 {
						t.Errorf("%s: %d packets came again, want 6", name, len(again))
					}
					for _, b := range again {
						if !bytes.Equal(b, first[name][wireSeq(b)]) {
							t.Errorf("%s: packet %d came again with other bytes", name, wireSeq(b))
						}
					}
				}
			})
		}
	}
}

// Room before a payload is made for what receivers agreed on by then. Others may come while the
// packet waits for its batch to end, or find it in the history.
func TestReceiverThatAgreedOnMoreThanThoseBeforeIt(t *testing.T) {
	for _, when := range []string{"in the batch", "in the history"} {
		for name, cfg := range extensionReceivers {
			t.Run(when+"/"+name, func(t *testing.T) {
				r := newRig(t)
				speaker, pub := r.extensionCamera(gcm)
				early, late := r.endpoint(gcm), r.endpoint(gcm)
				early.subscribe(pub)
				payloads := [][]byte{
					codectest.VP8(codectest.Frame{Keyframe: true, First: true, Picture: 5, Body: []byte("keyframe")}),
					codectest.VP8(codectest.Frame{First: true, Picture: 6, Body: []byte("another")}),
				}
				for i, payload := range payloads {
					if when == "in the history" && i == 1 {
						r.flush()
					}
					if i == 1 {
						cfg.SSRC, cfg.PayloadType, cfg.Repair, cfg.RepairPayloadType = 7, 96, 8, 97
						late.subscribeAs(pub, cfg)
					}
					r.read.Receive(speaker.extended(0, nil, payload), speaker.path)
				}
				r.flush()
				for _, v := range []*endpoint{early, late} {
					got := v.heard()
					if len(got) != 2 || !bytes.Equal(got[0].Payload, payloads[0]) || !bytes.Equal(got[1].Payload, payloads[1]) {
						t.Fatalf("%d packets arrived, want 2, with their payloads", len(got))
					}
					if v == late {
						cfg := cfg
						wantExtensions(t, got[0], &cfg, nil, 1, r.clock().Sub(r.plane.start))
					}
				}
				for range 10 { // so that there is room in the budget
					speaker.push(speaker.extended(0, nil, make([]byte, 100)))
				}
				late.heard()
				late.tell(&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: rtcp.NackPairsFromSequenceNumbers([]uint16{speaker.seq - 12, speaker.seq - 11})})
				got := late.heard()
				if len(got) != 2 || !bytes.Equal(got[0].Payload[2:], payloads[0]) || !bytes.Equal(got[1].Payload[2:], payloads[1]) {
					t.Fatalf("%d packets came again, want 2, with their payloads", len(got))
				}
			})
		}
	}
}

// F24: whatever a sender writes into extension blocks, its payloads pass, nothing but what receivers
// agreed on does, and others are heard.
func TestExtensionBombs(t *testing.T) {
	descriptor := codectest.NewWriter(codectest.L3T3, 500).Picture(true)[0].Packet(true, false)
	short := []byte{0xc0, 1, 2}
	repeat := func(profile uint16, id uint8, value []byte, n int) (b []byte) {
		for range n {
			b = element(b, profile, id, value)
		}
		return b
	}
	const one, two = profileOneByte, profileTwoByte
	dd := theirIDs.Dependency
	type block struct {
		profile uint16
		bytes   []byte
	}
	blocks := map[string]block{
		"descriptor twice, the second short":    {one, slices.Concat(element(nil, one, dd, short), element(nil, one, dd, []byte{1}))},
		"descriptor twice, the second empty":    {two, slices.Concat(element(nil, two, dd, descriptor), element(nil, two, dd, nil))},
		"descriptor of one byte, then a longer": {two, slices.Concat(element(nil, two, dd, []byte{1}), element(nil, two, dd, descriptor))},
		"descriptor of two bytes":               {one, element(nil, one, dd, []byte{1, 2})},
		"many of one":                           {one, repeat(one, theirIDs.Rotation, []byte{1}, 128)},
		"many that are empty":                   {two, repeat(two, theirIDs.Rotation, nil, 128)},
		"many that nobody knows":                {one, repeat(one, 13, []byte{1}, 128)},
		"one as long as it gets":                {two, element(nil, two, dd, make([]byte, 254))},
		"two that are too long together":        {two, slices.Concat(element(nil, two, dd, make([]byte, 120)), element(nil, two, theirIDs.Capture, make([]byte, 120)))},
		"cut off":                               {two, append(element(nil, two, theirIDs.Rotation, []byte{1}), dd, 250)},
		"cut off in a header":                   {two, append(element(nil, two, theirIDs.Rotation, []byte{1, 2, 3, 4, 5}), dd)},
		"end":                                   {one, append(element(nil, one, theirIDs.Rotation, []byte{1}), 0xf0, dd<<4, 1)},
		"padding":                               {one, make([]byte, 256)},
		"other profile":                         {0x1234, repeat(one, theirIDs.Rotation, []byte{1}, 100)},
		"capture time of all lengths":           {two, element(nil, two, theirIDs.Capture, make([]byte, 200))},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		b := make([]byte, 4*rng.IntN(65))
		for at := range b {
			b[at] = byte(rng.Uint32())
			if rng.IntN(3) > 0 { // lengths and ids that exist
				b[at] &= 0xf3
			}
		}
		blocks[fmt.Sprint("random ", i)] = block{[]uint16{one, two, two | 9}[i%3], b}
	}
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		t.Run(profile.String(), func(t *testing.T) {
			r := newRig(t)
			attacker, pub := r.extensionCamera(profile)
			voice, voicePub := r.endpoint(gcm), (*Publication)(nil)
			voicePub = voice.publish(PublicationConfig{})
			viewers := make(map[string]*endpoint)
			for name, cfg := range extensionReceivers {
				v := r.endpoint(gcm)
				cfg.SSRC, cfg.PayloadType = 5, 96
				v.subscribeAs(pub, cfg)
				v.subscribeAs(voicePub, SubscriptionConfig{SSRC: 6, PayloadType: 97, Ext: Extensions{AudioLevel: 1}})
				viewers[name] = v
			}
			refused := 0
			for _, name := range slices.Sorted(maps.Keys(blocks)) {
				payload := []byte("\xff payload with " + name)
				sealed := attacker.extended(blocks[name].profile, blocks[name].bytes, payload)
				if sealed == nil {
					refused++
					continue
				}
				r.read.Receive(sealed, attacker.path)
				said := voice.next(levelLoud)
				r.read.Receive(voice.seal(said), voice.path)
				r.flush()
				r.advance(10 * time.Millisecond)
				for who, v := range viewers {
					got := v.heard()
					if len(got) != 2 || !bytes.Equal(got[0].Payload, payload) || !bytes.Equal(got[1].Payload, said.Payload) {
						t.Fatalf("%s: %s gets %d packets, want 2, with their payloads", name, who, len(got))
					}
					cfg := extensionReceivers[who]
					agreed := []uint8{cfg.Ext.MID, cfg.Ext.AudioLevel, cfg.Ext.TWCC, cfg.Ext.SendTime, cfg.Ext.Delay, cfg.Ext.Capture, cfg.Ext.Rotation, cfg.Ext.Dependency}
					ids := got[0].GetExtensionIDs()
					for i, id := range ids {
						if !slices.Contains(agreed, id) || slices.Contains(ids[:i], id) {
							t.Fatalf("%s: %s gets extensions %v, agreed on %v", name, who, ids, agreed)
						}
					}
				}
			}
			if refused > len(blocks)/2 {
				t.Errorf("%d of %d blocks were refused: the test is wrong", refused, len(blocks))
			}
		})
	}
}

// What is dropped leaves nothing behind that grows.
func TestDroppedPacketsLeaveNothingBehind(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.extensionCamera(cm)
	viewer := r.endpoint(gcm)
	viewer.subscribeAs(pub, extensionReceivers["the same"])
	pub.SetMuted(true)
	read := r.read.(*reader)
	block := element(nil, profileTwoByte, theirIDs.Dependency, make([]byte, 30))
	for i := range 2000 {
		if i%2 == 0 { // its payload has to be moved
			speaker.push(speaker.extended(0, nil, make([]byte, 1000)))
		} else {
			speaker.push(speaker.extended(profileTwoByte, block, make([]byte, 1000)))
		}
		r.advance(time.Millisecond)
	}
	if n := r.drops(DropMuted); n != 2000 {
		t.Fatalf("%d packets dropped, want 2000: the test is wrong", n)
	}
	if n, m := cap(read.elements), cap(read.spill); n > 1<<12 || m > 1<<16 {
		t.Errorf("a reader keeps %d and %d bytes, though no batch had more than one packet", n, m)
	}
}

// Headers that grow, and payloads that move for it, cost no memory.
func TestExtensionsAllocateNothing(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		if profile == cm && raceEnabled {
			continue // pion/srtp takes what CM needs from a sync.Pool, which forgets on purpose then
		}
		t.Run(profile.String(), func(t *testing.T) {
			r := newRig(t)
			now := r.clock()
			r.plane.now = func() time.Time { return now }
			speaker, pub := r.extensionCamera(profile)
			for _, cfg := range extensionReceivers {
				v := r.endpoint(profile)
				cfg.SSRC, cfg.PayloadType = 5, 96
				v.subscribeAs(pub, cfg)
			}
			structure := codectest.NewWriter(codectest.L3T3, 500).Picture(true)[0].Packet(true, true)
			long := element(nil, profileTwoByte, theirIDs.Dependency, structure)
			short := element(nil, profileOneByte, theirIDs.Rotation, []byte{1})
			var sealed [][]byte
			for i := range 1500 {
				switch i % 3 {
				case 0:
					sealed = append(sealed, speaker.extended(profileTwoByte, long, make([]byte, 900)))
				case 1:
					sealed = append(sealed, speaker.extended(profileOneByte, short, make([]byte, 900)))
				default:
					sealed = append(sealed, speaker.extended(0, nil, make([]byte, 900)))
				}
			}
			out := netio.NewBatchFunc(func([]byte, netio.Path) {})
			read := r.plane.NewReader(out)
			next := func() {
				for range 3 {
					read.Receive(sealed[0], speaker.path)
					sealed = sealed[1:]
				}
				read.Flush()
				out.Flush()
				now = now.Add(10 * time.Millisecond)
			}
			for range defaultHistory/3 + 10 { // whose memory is made as it is needed
				next()
			}
			if n := testing.AllocsPerRun(200, next); n != 0 {
				t.Errorf("%v allocations for three packets, want none", n)
			}
		})
	}
}
