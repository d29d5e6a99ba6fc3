package forward

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"pgregory.net/rapid"

	"rtcd/service/rtc/netio"
)

func TestVoiceReachesEverySubscriber(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{gcm, cm, srtp.ProtectionProfileAeadAes256Gcm, srtp.ProtectionProfileAes256CmHmacSha1_80} {
		t.Run(profile.String(), func(t *testing.T) {
			r := newRig(t)
			speaker := r.endpoint(profile)
			pub := speaker.publish(PublicationConfig{})
			type listener struct {
				*endpoint
				sub  *Subscription
				ssrc uint32
				pt   uint8
				twcc uint8
			}
			var listeners []listener
			for i := range 5 {
				l := listener{endpoint: r.endpoint(gcm), pt: uint8(100 + i), twcc: uint8(i)}
				l.ssrc = l.peer.NewSSRC()
				l.sub = l.subscribeAs(pub, SubscriptionConfig{SSRC: l.ssrc, PayloadType: l.pt, Ext: Extensions{TWCC: l.twcc}})
				listeners = append(listeners, l)
			}
			sent := speaker.say(30)
			for _, l := range listeners {
				got := l.heard()
				wantPackets(t, got, sent)
				for i, p := range got {
					if p.SSRC != l.ssrc || p.PayloadType != l.pt {
						t.Fatalf("SSRC %d, payload type %d, want %d, %d", p.SSRC, p.PayloadType, l.ssrc, l.pt)
					}
					ids := p.GetExtensionIDs()
					if l.twcc == 0 {
						if p.Extension || len(ids) != 0 {
							t.Fatalf("extensions %v, want none", ids)
						}
						continue
					}
					if !slices.Equal(ids, []uint8{l.twcc}) {
						t.Fatalf("extensions %v, want %d alone", ids, l.twcc)
					}
					var ext rtp.TransportCCExtension
					if err := ext.Unmarshal(p.GetExtension(l.twcc)); err != nil || int(ext.TransportSequence) != i+1 {
						t.Fatalf("transport-wide number %d, %v, want %d", ext.TransportSequence, err, i+1)
					}
				}
				if s := l.sub.Stats(); s.Packets != 30 || s.Octets == 0 {
					t.Errorf("stats %+v, want 30 packets", s)
				}
			}
			if got := speaker.heard(); len(got) != 0 {
				t.Errorf("the speaker hears %d packets of itself", len(got))
			}
		})
	}
}

// Headers of all lengths: the payload has to stay what it is, in place or moved.
func TestNothingOfTheSendersHeaderPasses(t *testing.T) {
	secret := []byte("secret of the sender")
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		for name, edit := range map[string]func(*rtp.Packet){
			"no extension":    func(p *rtp.Packet) { p.Extension, p.Extensions = false, nil },
			"empty extension": func(p *rtp.Packet) { p.Extensions = nil },
			"one byte": func(p *rtp.Packet) {
				_ = p.SetExtension(7, secret[:16])
			},
			"two byte": func(p *rtp.Packet) {
				p.ExtensionProfile, p.Extensions = profileTwoByte, nil
				_ = p.SetExtension(200, secret)
			},
			"own profile": func(p *rtp.Packet) {
				p.ExtensionProfile, p.Extensions = 0x1234, nil
				_ = p.SetExtension(0, secret)
			},
			"marker":       func(p *rtp.Packet) { p.Marker = true },
			"padding":      func(p *rtp.Packet) { p.Padding, p.PaddingSize = true, 9 },
			"no payload":   func(p *rtp.Packet) { p.Payload = nil },
			"long payload": func(p *rtp.Packet) { p.Payload = bytes.Repeat([]byte{7}, 1400) },
			"short payload, no extension": func(p *rtp.Packet) {
				p.Extension, p.Extensions, p.Payload = false, nil, []byte{1}
			},
		} {
			for _, twcc := range []uint8{0, 5} {
				t.Run(fmt.Sprintf("%s/%s/%d", profile, name, twcc), func(t *testing.T) {
					r := newRig(t)
					speaker, listener := r.endpoint(profile), r.endpoint(profile)
					pub := speaker.publish(PublicationConfig{})
					listener.subscribeAs(pub, SubscriptionConfig{SSRC: 99, PayloadType: 96, Ext: Extensions{TWCC: twcc}})
					p := speaker.next(levelLoud)
					edit(p)
					speaker.push(speaker.seal(p))
					for _, b := range r.wire[listener.path] {
						if bytes.Contains(b, secret[:8]) {
							t.Error("the sender's extension is on the wire")
						}
					}
					got := listener.heard()
					wantPackets(t, got, []*rtp.Packet{p})
					if ids := got[0].GetExtensionIDs(); twcc == 0 && got[0].Extension || twcc != 0 && !slices.Equal(ids, []uint8{twcc}) {
						t.Errorf("extensions %v", ids)
					}
					if got[0].Padding != p.Padding || got[0].PaddingSize != p.PaddingSize {
						t.Errorf("padding %v %d, want %v %d", got[0].Padding, got[0].PaddingSize, p.Padding, p.PaddingSize)
					}
				})
			}
		}
	}
}

func TestOnePacketBatchesAndLargeOnes(t *testing.T) {
	r := newRig(t)
	a, b, listener := r.endpoint(gcm), r.endpoint(cm), r.endpoint(gcm)
	subA := listener.subscribe(a.publish(PublicationConfig{}))
	subB := listener.subscribe(b.publish(PublicationConfig{}))
	var wantA, wantB []*rtp.Packet
	for range 200 { // more than a batch has slots
		pa, pb := a.next(1), b.next(1)
		wantA, wantB = append(wantA, pa), append(wantB, pb)
		r.read.Receive(a.seal(pa), a.path)
		r.read.Receive(b.seal(pb), b.path)
	}
	r.flush()
	var gotA, gotB []*rtp.Packet
	for _, p := range listener.heard() {
		if p.SSRC == subA.ssrc {
			gotA = append(gotA, p)
		} else if p.SSRC == subB.ssrc {
			gotB = append(gotB, p)
		}
	}
	wantPackets(t, gotA, wantA)
	wantPackets(t, gotB, wantB)
}

func TestMuteLeavesNoGap(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	listener.subscribe(pub)
	sent := speaker.say(10)
	pub.SetMuted(true)
	speaker.say(300)
	late := r.endpoint(gcm) // one that joins meanwhile
	late.subscribe(pub)
	if got := late.heard(); len(got) != 0 {
		t.Fatalf("%d packets of a muted voice arrived", len(got))
	}
	pub.SetMuted(false)
	after := speaker.say(10)
	if n := r.drops(DropMuted); n != 300 {
		t.Errorf("%d packets counted as muted, want 300", n)
	}
	for i, p := range after {
		p.SequenceNumber = 510 + uint16(i) // as if nothing had been sent in between
	}
	wantPackets(t, listener.heard(), append(sent, after...))
	wantPackets(t, late.heard(), after)
}

func TestLateFromBeforeTheMuteIsDropped(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	listener.subscribe(pub)
	speaker.say(3)
	late := speaker.seal(speaker.next(1))
	speaker.say(1)
	pub.SetMuted(true)
	speaker.say(2)
	pub.SetMuted(false)
	speaker.say(1)
	before := len(listener.heard())
	speaker.push(late)
	if got := listener.heard(); before != 5 || len(got) != 0 || r.drops(DropLate) != 1 {
		t.Errorf("%d packets before, %d late ones arrived, %d counted; want 5, 0, 1", before, len(got), r.drops(DropLate))
	}
}

// Across roll-overs, with loss, reordering and duplicates: what gets through is what was sent, in
// the order it came, each once.
func TestLossReorderDuplicateAndRollOver(t *testing.T) {
	for profile, n := range map[srtp.ProtectionProfile]int{gcm: 72_000, cm: 10_000} { // two roll-overs, and one
		t.Run(profile.String(), func(t *testing.T) {
			r := newRig(t)
			speaker, listener := r.endpoint(profile), r.endpoint(profile)
			speaker.seq = 60000
			listener.subscribe(speaker.publish(PublicationConfig{}))
			var want []*rtp.Packet
			type wired struct {
				p *rtp.Packet
				b []byte
			}
			var held []wired
			duplicates := 0
			for i := range n {
				p := speaker.next(1)
				w := wired{p, speaker.seal(p)}
				switch {
				case i%97 == 5: // lost
					continue
				case i%31 == 7: // late
					held = append(held, w)
					continue
				}
				speaker.push(w.b)
				want = append(want, w.p)
				if i%53 == 11 {
					speaker.push(w.b)
					duplicates++
				}
				if len(held) > 0 && i%31 == 20 {
					speaker.push(held[0].b)
					want = append(want, held[0].p)
					held = held[1:]
				}
				if i%20 == 0 {
					r.advance(400 * time.Millisecond)
				}
			}
			wantPackets(t, listener.heard(), want)
			if n := r.drops(DropReplay); n != uint64(duplicates) {
				t.Errorf("%d packets counted as replayed, want %d", n, duplicates)
			}
		})
	}
}

// A subscription that begins just before a roll-over would take the receiver with it if its
// first packets were lost.
func TestSubscriptionDoesNotBeginBeforeARollOver(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	speaker.seq = 65535 - 20
	pub := speaker.publish(PublicationConfig{})
	speaker.say(14)
	listener.subscribe(pub) // with 7 to go
	late := speaker.seal(speaker.next(1))
	speaker.say(6)
	sent := speaker.say(5)
	speaker.push(late)
	if sent[0].SequenceNumber != 0 {
		t.Fatalf("first number %d, want 0: the test is wrong", sent[0].SequenceNumber)
	}
	wantPackets(t, listener.heard(), sent)
}

func TestNewSSRCContinuesTheStream(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	sent := speaker.say(10)
	old := speaker.seal(&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: opus, SSRC: speaker.ssrc, SequenceNumber: speaker.seq, Timestamp: speaker.ts}, Payload: []byte("old")})
	speaker.ssrc, speaker.seq, speaker.ts = 0xabcdef, 40000, 7 // not declared: the payload type tells
	after := speaker.say(10)
	speaker.push(old)
	for i, p := range after {
		p.SequenceNumber = 510 + uint16(i)
		p.Timestamp = sent[9].Timestamp + 960*uint32(i+1)
	}
	wantPackets(t, listener.heard(), append(sent, after...))
	if n := r.drops(DropLate); n != 1 {
		t.Errorf("%d late packets, want the one of the SSRC before", n)
	}
	if len(speaker.streams) != 2 || speaker.streams[1].SSRC != 0xabcdef {
		t.Errorf("streams %+v, want two", speaker.streams)
	}
}

// Whatever a source does with its numbers, and however often it is muted or changes its SSRC: the
// receiver's SRTP context follows, and no number comes twice.
func TestReceiverStaysInStep(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
		pub := speaker.publish(PublicationConfig{})
		listener.subscribe(pub)
		speaker.seq = rapid.Uint16Range(0, 1<<16-1-rollOverGuard).Draw(rt, "start")
		speaker.say(1)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				pub.SetMuted(rapid.Bool().Draw(rt, "muted"))
			case 1:
				r.advance(quietTime) // or there are too many at a time
				speaker.ssrc++
				speaker.seq = rapid.Uint16().Draw(rt, "restart")
			case 2, 3, 4:
				speaker.seq += uint16(rapid.IntRange(0, 1<<15-2).Draw(rt, "jump"))
			case 5:
				r.advance(time.Duration(rapid.IntRange(0, 10).Draw(rt, "pause")) * time.Second)
			}
			speaker.say(rapid.IntRange(1, 5).Draw(rt, "packets"))
		}
		pub.SetMuted(false)
		last := speaker.say(1)[0]
		got := listener.heard() // fails on what does not decrypt or is doubled
		if len(got) == 0 || !bytes.Equal(got[len(got)-1].Payload, last.Payload) {
			rt.Fatalf("the last packet did not arrive")
		}
	})
}

func TestOnStream(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	screen := e.uplink("1")
	screen.SSRCs, screen.Audio = nil, false
	screen.Codecs = []Codec{{PayloadType: 96, Mime: "video/VP8", ClockRate: 90000}}
	screen.Ext.RID = 9
	e.peer.SetUplinks([]Uplink{e.uplink("0"), screen})
	e.say(2)
	p := e.next(0)
	p.SSRC, p.PayloadType = 77, 96
	e.must(p.SetExtension(extMID, []byte("1")))
	e.must(p.SetExtension(9, []byte("h")))
	e.push(e.seal(p))
	want := []Stream{
		{MID: "0", SSRC: e.ssrc, PayloadType: opus, Mime: "audio/opus"},
		{MID: "1", RID: "h", SSRC: 77, PayloadType: 96, Mime: "video/VP8"},
	}
	if !slices.Equal(e.streams, want) {
		t.Errorf("streams %+v, want %+v", e.streams, want)
	}
	if n := r.drops(DropUnbound); n != 3 {
		t.Errorf("%d packets counted as unbound, want 3", n)
	}
}

// Descriptions come and go while packets flow.
func TestSetUplinksKeepsRunningStreams(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	sent := speaker.say(5)
	more := speaker.uplink("1")
	more.SSRCs = []uint32{4711}
	speaker.peer.SetUplinks([]Uplink{speaker.uplink("0"), more})
	sent = append(sent, speaker.say(5)...)
	wantPackets(t, listener.heard(), sent)
	if len(speaker.streams) != 1 {
		t.Errorf("%d streams, want the one that runs", len(speaker.streams))
	}
	speaker.peer.SetUplinks([]Uplink{more})
	speaker.say(5)
	if got := listener.heard(); len(got) != 0 {
		t.Errorf("%d packets of a section that is gone arrived", len(got))
	}
	speaker.peer.SetUplinks([]Uplink{speaker.uplink("0"), more})
	sent = speaker.say(5)
	wantPackets(t, listener.heard(), sent)
}

func TestMoveKeepsBothPaths(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	old := listener.path
	moved := netio.NewPath(1, netip.MustParseAddrPort("198.51.100.7:9"), true)
	sent := speaker.say(3)
	wantPackets(t, listener.heard(), sent)
	if err := listener.peer.Move(moved); err != nil {
		t.Fatal(err)
	}
	listener.path = moved
	sent = speaker.say(3)
	wantPackets(t, listener.heard(), sent)
	if !r.read.Known(old) || !r.read.Known(moved) {
		t.Error("a path is not known right after the move")
	}
	if len(r.take(old)) != 0 {
		t.Error("packets went to the path before")
	}
	for i := range maxPaths {
		if err := listener.peer.Move(netio.NewPath(2, netip.AddrPortFrom(moved.Remote().Addr(), uint16(100+i)), false)); err != nil {
			t.Fatal(err)
		}
	}
	r.flush()
	if r.read.Known(old) || r.read.Known(moved) {
		t.Error("paths of long ago are still known")
	}
}

// An address is used again before its first user is gone.
func TestPathTakenOver(t *testing.T) {
	r := newRig(t)
	first, second := r.endpoint(gcm), r.endpoint(gcm)
	if err := second.peer.Move(first.path); err != nil {
		t.Fatal(err)
	}
	first.peer.Close()
	if !r.read.Known(first.path) {
		t.Error("closing the first user took the path from the second")
	}
	second.peer.Close()
	r.flush()
	if r.read.Known(first.path) || r.read.Known(second.path) {
		t.Error("a path outlives its peer")
	}
	if !r.plane.byPath.empty() || len(r.plane.peers) != 0 {
		t.Error("the plane remembers closed peers")
	}
}

func TestClosing(t *testing.T) {
	r := newRig(t)
	speaker, a, b := r.endpoint(gcm), r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	subA := a.subscribe(pub)
	b.subscribe(pub)
	speaker.say(1)
	subA.Close()
	subA.Close()
	b.peer.Close()
	b.peer.Close()
	speaker.say(1)
	if n, m := len(a.heard()), len(b.heard()); n != 1 || m != 1 {
		t.Errorf("%d and %d packets arrived, want 1 and 1: closed subscriptions get nothing", n, m)
	}
	if n := len(*pub.subs.Load()); n != 0 {
		t.Errorf("%d subscriptions left, want 0", n)
	}
	if _, err := pub.Subscribe(b.peer, SubscriptionConfig{SSRC: 5}); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribing a closed peer: %v, want %v", err, ErrClosed)
	}
	speaker.peer.Close()
	if _, err := pub.Subscribe(a.peer, SubscriptionConfig{SSRC: 5}); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribing to a publication of a closed peer: %v, want %v", err, ErrClosed)
	}
	if _, err := speaker.peer.Publish("0", PublicationConfig{}); !errors.Is(err, ErrClosed) {
		t.Errorf("publishing with a closed peer: %v, want %v", err, ErrClosed)
	}
	if err := speaker.peer.Move(a.path); !errors.Is(err, ErrClosed) {
		t.Errorf("moving a closed peer: %v, want %v", err, ErrClosed)
	}
	if err := speaker.peer.Attach(a.path, testKeys(gcm, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("attaching a closed peer: %v, want %v", err, ErrClosed)
	}
	if len(a.peer.subs) != 0 || len(*a.peer.sublist.Load()) != 0 {
		t.Error("a peer remembers closed subscriptions")
	}
}

func TestAttachAndSubscribeErrors(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	pub := e.publish(PublicationConfig{})
	if err := e.peer.Attach(e.path, testKeys(gcm, 1)); !errors.Is(err, ErrAttached) {
		t.Errorf("attaching twice: %v, want %v", err, ErrAttached)
	}
	bare := r.plane.NewPeer(PeerConfig{})
	t.Cleanup(bare.Close)
	if _, err := pub.Subscribe(bare, SubscriptionConfig{SSRC: 5}); !errors.Is(err, ErrNotAttached) {
		t.Errorf("subscribing a peer without keys: %v, want %v", err, ErrNotAttached)
	}
	if err := bare.Move(e.path); !errors.Is(err, ErrNotAttached) {
		t.Errorf("moving a peer without keys: %v, want %v", err, ErrNotAttached)
	}
	for _, profile := range []srtp.ProtectionProfile{0, srtp.ProtectionProfileNullHmacSha1_80, srtp.ProtectionProfileAes128CmHmacSha1_32} {
		if err := bare.Attach(e.path, Keys{Profile: profile}); !errors.Is(err, errProfile) {
			t.Errorf("attaching with profile %s: %v, want %v", profile, err, errProfile)
		}
	}
	short := testKeys(gcm, 1)
	short.LocalSalt = nil
	if err := bare.Attach(e.path, short); err == nil {
		t.Error("attaching with a short salt succeeds")
	}
	for _, cfg := range []SubscriptionConfig{{SSRC: 5, PayloadType: 128}, {SSRC: 5, Ext: Extensions{TWCC: 15}}} {
		if _, err := pub.Subscribe(e.peer, cfg); err == nil {
			t.Errorf("subscribing with %+v succeeds", cfg)
		}
	}
}

// An SSRC with the same keys twice would repeat nonces.
func TestSSRCIsUsedOnce(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	ssrc := listener.peer.NewSSRC()
	listener.subscribeAs(pub, SubscriptionConfig{SSRC: ssrc}).Close()
	if _, err := pub.Subscribe(listener.peer, SubscriptionConfig{SSRC: ssrc}); !errors.Is(err, ErrSSRCUsed) {
		t.Errorf("using an SSRC again: %v, want %v", err, ErrSSRCUsed)
	}
	if _, err := pub.Subscribe(listener.peer, SubscriptionConfig{SSRC: listener.peer.ssrc}); !errors.Is(err, ErrSSRCUsed) {
		t.Errorf("using the SSRC of our RTCP: %v, want %v", err, ErrSSRCUsed)
	}
}

func TestKeysDoNotShow(t *testing.T) {
	keys := testKeys(gcm, 1)
	for _, k := range []*Keys{&keys} {
		shown := fmt.Sprintf("%v %+v %#v %s %q %x %X %d %v", *k, *k, *k, *k, *k, *k, *k, *k, k) + k.String() + k.GoString()
		text, err := json.Marshal(map[string]any{"keys": k, "value": *k})
		if err != nil {
			t.Fatal(err)
		}
		shown += string(text)
		for _, secret := range [][]byte{k.LocalKey, k.LocalSalt, k.RemoteKey, k.RemoteSalt} {
			for _, form := range []string{"%x", "%X", "%d", "%s"} {
				if part := strings.Trim(fmt.Sprintf(form, secret[8:]), "[]"); strings.Contains(shown, part) {
					t.Errorf("a key shows: %s", form)
				}
			}
		}
	}
	peer := newRig(t).endpoint(gcm).peer
	if shown := fmt.Sprintf("%v %+v %#v %s %d", peer, peer, peer, peer, peer); shown != strings.TrimSpace(strings.Repeat("peer session1 ", 5)) {
		t.Errorf("a peer shows as %s", shown)
	}
	clone := keys.clone()
	clone.wipe()
	if !bytes.Equal(keys.LocalKey, testKeys(gcm, 1).LocalKey) {
		t.Error("wiping a clone wipes the original")
	}
}
