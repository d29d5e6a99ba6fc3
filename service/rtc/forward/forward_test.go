package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"go.uber.org/goleak"

	"rtcd/service/rtc/netio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	gcm = srtp.ProtectionProfileAeadAes128Gcm
	cm  = srtp.ProtectionProfileAes128CmHmacSha1_80

	opus      = 111
	extLevel  = 1
	extTWCC   = 3
	extMID    = 4
	levelLoud = 20
)

// rig is a plane with a clock that the test moves and a wire that collects what is sent.
type rig struct {
	t     testing.TB
	plane *Plane
	read  netio.Reader
	out   *netio.Batch

	mu   sync.Mutex
	now  time.Time
	wire map[netio.Path][][]byte
	made int
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), wire: make(map[netio.Path][][]byte)}
	r.plane = NewPlane(Config{Now: r.clock})
	r.read, r.out = r.reader()
	r.advance(time.Second)
	return r
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// reader returns another reading goroutine's half.
func (r *rig) reader() (netio.Reader, *netio.Batch) {
	out := netio.NewBatchFunc(func(b []byte, to netio.Path) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wire[to] = append(r.wire[to], bytes.Clone(b))
	})
	return r.plane.NewReader(out), out
}

func (r *rig) flush() {
	r.read.Flush()
	r.out.Flush()
}

func (r *rig) tick() { r.plane.Tick(r.clock(), r.out) }

// take returns what was sent to path since the last time.
func (r *rig) take(path netio.Path) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.wire[path]
	delete(r.wire, path)
	return got
}

func (r *rig) drops(reason Drop) uint64 { return r.plane.Stats().Drops[reason] }

// endpoint is a peer with both ends of its transport.
type endpoint struct {
	*rig
	peer     *Peer
	path     netio.Path
	enc, dec *srtp.Context // the endpoint's own
	streams  []Stream      // that OnStream told of

	ssrc uint32 // of its voice
	seq  uint16
	ts   uint32
	twcc uint16
}

func testKeys(profile srtp.ProtectionProfile, n int) Keys {
	keyLen, _ := profile.KeyLen()
	saltLen, _ := profile.SaltLen()
	fill := func(length int, b byte) []byte {
		s := bytes.Repeat([]byte{b}, length)
		binary.BigEndian.PutUint32(s, uint32(n))
		return s
	}
	return Keys{
		Profile: profile, LocalKey: fill(keyLen, 1), LocalSalt: fill(saltLen, 2),
		RemoteKey: fill(keyLen, 3), RemoteSalt: fill(saltLen, 4),
	}
}

// endpoint returns an attached endpoint with a declared voice section.
func (r *rig) endpoint(profile srtp.ProtectionProfile) *endpoint {
	r.t.Helper()
	return r.endpointAs(profile, PeerConfig{})
}

// endpointAs is endpoint with a configuration, but for the CNAME and OnStream.
func (r *rig) endpointAs(profile srtp.ProtectionProfile, cfg PeerConfig) *endpoint {
	r.t.Helper()
	r.made++
	n := r.made
	e := &endpoint{
		rig:  r,
		path: netio.NewPath(0, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(1000+n)), false),
		ssrc: 0x1000 + uint32(n), seq: 500, ts: 90_000,
	}
	cfg.CNAME = fmt.Sprintf("session%d", n)
	cfg.OnStream = func(s Stream) { e.streams = append(e.streams, s) }
	e.peer = r.plane.NewPeer(cfg)
	keys := testKeys(profile, n)
	var err error
	if e.enc, err = srtp.CreateContext(keys.RemoteKey, keys.RemoteSalt, profile); err != nil {
		r.t.Fatal(err)
	}
	if e.dec, err = srtp.CreateContext(keys.LocalKey, keys.LocalSalt, profile, srtp.SRTPReplayProtection(8192), srtp.SRTCPReplayProtection(8192)); err != nil {
		r.t.Fatal(err)
	}
	if err := e.peer.Attach(e.path, keys); err != nil {
		r.t.Fatal(err)
	}
	e.peer.SetUplinks([]Uplink{e.uplink("0")})
	return e
}

func (e *endpoint) uplink(mid string) Uplink {
	return Uplink{
		MID: mid, Audio: true, SSRCs: []uint32{e.ssrc},
		Codecs: []Codec{{PayloadType: opus, Mime: "audio/opus", ClockRate: 48000}},
		Ext:    Extensions{MID: extMID, AudioLevel: extLevel, TWCC: extTWCC},
	}
}

func (e *endpoint) publish(cfg PublicationConfig) *Publication {
	e.t.Helper()
	pub, err := e.peer.Publish("0", cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return pub
}

// subscribe subscribes e, without transport-wide-cc.
func (e *endpoint) subscribe(pub *Publication) *Subscription {
	e.t.Helper()
	return e.subscribeAs(pub, SubscriptionConfig{SSRC: e.peer.NewSSRC(), PayloadType: 96})
}

func (e *endpoint) subscribeAs(pub *Publication, cfg SubscriptionConfig) *Subscription {
	e.t.Helper()
	sub, err := pub.Subscribe(e.peer, cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return sub
}

// next returns the endpoint's next voice packet, with an audio level and a transport-wide number.
func (e *endpoint) next(level uint8) *rtp.Packet {
	p := &rtp.Packet{
		Header: rtp.Header{
			Version: 2, PayloadType: opus, SequenceNumber: e.seq, Timestamp: e.ts, SSRC: e.ssrc,
		},
		Payload: fmt.Appendf(nil, "payload %d of %x", e.seq, e.ssrc),
	}
	p.Extension, p.ExtensionProfile = true, profileOneByte
	e.must(p.SetExtension(extLevel, []byte{0x80 | level}))
	e.must(p.SetExtension(extTWCC, binary.BigEndian.AppendUint16(nil, e.twcc)))
	e.seq++
	e.ts += 960
	e.twcc++
	return p
}

func (e *endpoint) must(err error) {
	if err != nil {
		e.t.Helper()
		e.t.Fatal(err)
	}
}

// seal returns p as the endpoint puts it on the wire.
func (e *endpoint) seal(p *rtp.Packet) []byte {
	e.t.Helper()
	plain, err := p.Marshal()
	e.must(err)
	return e.sealBytes(plain)
}

func (e *endpoint) sealBytes(plain []byte) []byte {
	e.t.Helper()
	b, err := e.enc.EncryptRTP(nil, plain, nil)
	e.must(err)
	return b
}

// say sends the next n packets, 20 ms apart, each a batch of its own.
func (e *endpoint) say(n int) (sent []*rtp.Packet) {
	e.t.Helper()
	for range n {
		p := e.next(levelLoud)
		sent = append(sent, p)
		e.push(e.seal(p))
		e.advance(20 * time.Millisecond)
	}
	return sent
}

// push lets the plane receive b as a batch of its own. b stays as it is.
func (e *endpoint) push(b []byte) {
	e.read.Receive(bytes.Clone(b), e.path)
	e.flush()
}

// heard returns the RTP packets sent to the endpoint since the last time, decrypted; RTCP goes
// to the endpoint's told.
func (e *endpoint) heard() (got []*rtp.Packet) {
	e.t.Helper()
	for _, b := range e.take(e.path) {
		if isRTCP(b) {
			continue
		}
		plain, err := e.dec.DecryptRTP(nil, b, nil)
		e.must(err)
		p := new(rtp.Packet)
		e.must(p.Unmarshal(plain))
		got = append(got, p)
	}
	return got
}

// told returns the RTCP packets sent to the endpoint since the last time.
func (e *endpoint) told() (got []rtcp.Packet) {
	e.t.Helper()
	for _, b := range e.take(e.path) {
		if !isRTCP(b) {
			continue
		}
		plain, err := e.dec.DecryptRTCP(nil, b, nil)
		e.must(err)
		parts, err := rtcp.Unmarshal(plain)
		e.must(err)
		got = append(got, parts...)
	}
	return got
}

// tell sends RTCP to the plane.
func (e *endpoint) tell(parts ...rtcp.Packet) {
	e.t.Helper()
	plain, err := rtcp.Marshal(parts)
	e.must(err)
	b, err := e.enc.EncryptRTCP(nil, plain, nil)
	e.must(err)
	e.push(b)
}

// wantPackets checks that got are the packets of want: number, timestamp, marker and payload.
func wantPackets(t testing.TB, got, want []*rtp.Packet) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets arrived, want %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		if g.SequenceNumber != w.SequenceNumber || g.Timestamp != w.Timestamp || g.Marker != w.Marker {
			t.Fatalf("packet %d: sequence number %d, timestamp %d, marker %v, want %d, %d, %v",
				i, g.SequenceNumber, g.Timestamp, g.Marker, w.SequenceNumber, w.Timestamp, w.Marker)
		}
		if !bytes.Equal(g.Payload, w.Payload) {
			t.Fatalf("packet %d: payload %q, want %q", i, g.Payload, w.Payload)
		}
	}
}
