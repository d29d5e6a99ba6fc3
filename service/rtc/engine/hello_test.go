package engine

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/elliptic"
	"github.com/pion/dtls/v3/pkg/protocol"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/netio"
)

// aHello is a ClientHello that a handshake can begin with, changed.
func aHello(t testing.TB, change func(*handshake.MessageClientHello)) []byte {
	t.Helper()
	h := &handshake.MessageClientHello{
		Version: protocol.Version1_2, CipherSuiteIDs: []uint16{0x1301, helloSuites[0]},
		CompressionMethods: []*protocol.CompressionMethod{{}},
		Extensions: []extension.Extension{
			&extension.SupportedEllipticCurves{EllipticCurves: []elliptic.Curve{elliptic.X25519}},
			&extension.UseSRTP{ProtectionProfiles: []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM}},
		},
	}
	if change != nil {
		change(h)
	}
	b, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// aRecord is one of an epoch with that content.
func aRecord(kind byte, epoch uint16, content []byte) []byte {
	b := []byte{kind, 0xfe, 0xfd, 0, byte(epoch), 0, 0, 0, 0, 0, 0}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(content))), content...)
}

// aMessage is a record with the fragment of a message that is body[from:to].
func aMessage(kind byte, seq int, body []byte, from, to int) []byte {
	b := []byte{kind, 0, byte(len(body) >> 8), byte(len(body)), 0, byte(seq), 0, byte(from >> 8), byte(from), 0, byte((to - from) >> 8), byte(to - from)}
	return aRecord(recordHandshake, 0, append(b, body[from:to]...))
}

func whole(kind byte, seq int, body []byte) []byte { return aMessage(kind, seq, body, 0, len(body)) }

// asked is a server's request for a cookie.
func asked(cookie string) []byte {
	return whole(typeHelloVerify, 0, append([]byte{0xfe, 0xfd, byte(len(cookie))}, cookie...))
}

func TestGuardRefusesWhatEndsHandshakes(t *testing.T) {
	hello := func(change func(*handshake.MessageClientHello)) []byte { return whole(typeHello, 0, aHello(t, change)) }
	good := aHello(t, nil)
	for name, b := range map[string][]byte{
		"no suite of ours": hello(func(h *handshake.MessageClientHello) { h.CipherSuiteIDs = []uint16{1, 2, 0xc02f} }),
		"version":          hello(func(h *handshake.MessageClientHello) { h.Version = protocol.Version1_0 }),
		"no srtp":          hello(func(h *handshake.MessageClientHello) { h.Extensions = h.Extensions[:1] }),
		"other srtp": hello(func(h *handshake.MessageClientHello) {
			h.Extensions[1] = &extension.UseSRTP{ProtectionProfiles: []dtls.SRTPProtectionProfile{dtls.SRTP_NULL_HMAC_SHA1_80}}
		}),
		"no curve of ours":   hello(func(h *handshake.MessageClientHello) { h.Extensions[0] = &extension.SupportedEllipticCurves{} }),
		"no compression":     hello(func(h *handshake.MessageClientHello) { h.CompressionMethods = nil }),
		"cookie unasked":     hello(func(h *handshake.MessageClientHello) { h.Cookie = []byte("guess") }),
		"second first":       whole(typeHello, 1, good),
		"third":              whole(typeHello, 2, good),
		"cut short":          whole(typeHello, 0, good[:len(good)-1]),
		"fragment that lies": aRecord(recordHandshake, 0, []byte{1, 0, 0, 4, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0}),
		"fragment too long":  aRecord(recordHandshake, 0, []byte{1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0}),
		"empty fragment":     aRecord(recordHandshake, 0, []byte{1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0}),
		"too large":          aMessage(typeHello, 0, make([]byte, maxHello+1), 0, 100),
		"more beside":        append(whole(typeHello, 0, good), whole(typeCertificate, 1, good)...),
		"server's message":   whole(2, 0, good),
		"certificate early":  whole(typeCertificate, 1, good),
		"clear data":         aRecord(23, 0, []byte("data")),
		"unknown record":     aRecord(24, 0, []byte{1}),
		"cipher spec early":  aRecord(recordCipherSpec, 0, []byte{1}),
		"no record":          {22},
		"empty record":       aRecord(recordHandshake, 0, nil),
	} {
		t.Run(name, func(t *testing.T) {
			g := new(guard)
			if _, ok := g.admit(b); ok {
				t.Error("passes before any hello")
			}
			if _, ok := g.admit(whole(typeHello, 0, good)); !ok {
				t.Fatal("the endpoint's hello is refused after it")
			}
			if _, ok := g.admit(b); ok {
				t.Error("passes after the first hello")
			}
			g.sent(asked("cookie"))
			answer := whole(typeHello, 1, aHello(t, func(h *handshake.MessageClientHello) { h.Cookie = []byte("cookie") }))
			if _, ok := g.admit(answer); !ok {
				t.Fatal("the hello with the cookie is refused after it")
			}
		})
	}
}

func TestGuardKeepsToOneHello(t *testing.T) {
	g := new(guard)
	admit := func(want bool, name string, b []byte) {
		t.Helper()
		if _, ok := g.admit(b); ok != want {
			t.Errorf("%s: passes: %v", name, ok)
		}
	}
	random := func(h *handshake.MessageClientHello) { h.Random.RandomBytes[3] = 7 }
	cookie := func(h *handshake.MessageClientHello) { h.Cookie = []byte("cookie") }
	both := func(h *handshake.MessageClientHello) { random(h); cookie(h) }
	first, second := whole(typeHello, 0, aHello(t, nil)), whole(typeHello, 1, aHello(t, cookie))
	verify := whole(typeVerify, 4, []byte{1, 2, 3})

	admit(true, "first", first)
	admit(true, "first again", first)
	admit(false, "another first", whole(typeHello, 0, aHello(t, random)))
	admit(false, "second before the cookie is asked for", second)
	admit(false, "encrypted", aRecord(22, 1, make([]byte, 40)))
	g.sent(aRecord(recordHandshake, 0, []byte{3}))
	g.sent(asked("cookie"))
	admit(false, "another with the cookie", whole(typeHello, 1, aHello(t, both)))
	admit(false, "wrong cookie", whole(typeHello, 1, aHello(t, func(h *handshake.MessageClientHello) { h.Cookie = []byte("cookies") })))
	admit(false, "no cookie", whole(typeHello, 1, aHello(t, nil)))
	admit(false, "what follows, too early", verify)
	admit(true, "second", second)
	admit(true, "second again", second)
	admit(false, "other extensions", whole(typeHello, 1, aHello(t, func(h *handshake.MessageClientHello) {
		cookie(h)
		h.Extensions = append(h.Extensions, &extension.UseExtendedMasterSecret{Supported: true})
	})))
	flight := slices.Concat(whole(typeCertificate, 2, make([]byte, 300)), whole(typeKeyExchange, 3, make([]byte, 33)), verify,
		aRecord(recordCipherSpec, 0, []byte{1}), aRecord(recordHandshake, 1, make([]byte, 40)))
	admit(true, "what follows", flight)
	admit(false, "too many", whole(typeCertificate, maxHandshakeSeq+1, []byte{1}))
	admit(false, "too large", aMessage(typeCertificate, 2, make([]byte, maxHandshake+1), 0, 100))
	admit(false, "other cipher spec", aRecord(recordCipherSpec, 0, []byte{2}))
	admit(false, "clear data", aRecord(23, 0, []byte("data")))
	admit(true, "data", aRecord(23, 1, make([]byte, 40)))
}

// A hello of today's browsers may not fit into one datagram. Nothing of it goes on before it is whole.
func TestGuardJoinsFragments(t *testing.T) {
	g := new(guard)
	body := aHello(t, nil)
	half := len(body) / 2
	head, tail := aMessage(typeHello, 0, body, 0, half), aMessage(typeHello, 0, body, half, len(body))
	forged := aMessage(typeHello, 0, make([]byte, len(body)), 0, half)
	for _, b := range [][]byte{aMessage(typeHello, 0, make([]byte, 900), 0, 40), forged, head} {
		if held, ok := g.admit(b); !ok || held == nil || len(held) > 0 {
			t.Fatalf("a first fragment: %d datagrams, %v", len(held), ok)
		}
	}
	for _, b := range [][]byte{aMessage(typeHello, 0, make([]byte, 900), half, 900), aMessage(typeHello, 0, body, half+1, len(body))} {
		if _, ok := g.admit(b); ok {
			t.Fatal("a fragment that does not go on passes")
		}
	}
	held, ok := g.admit(tail)
	if !ok || len(held) != 2 || !bytes.Equal(held[0], head) || !bytes.Equal(held[1], tail) {
		t.Fatalf("the whole: %d datagrams, %v", len(held), ok)
	}
	for range maxHelloParts {
		g.admit(aMessage(typeHello, 1, make([]byte, 100), 0, 1))
	}
	for i := 1; i < 100; i++ {
		if _, ok := g.admit(aMessage(typeHello, 1, make([]byte, 100), i, i+1)); ok && i >= maxHelloParts {
			t.Fatalf("%d fragments are kept", i+1)
		}
	}
}

// A client that goes over an address of its own from which an attacker writes too.
type forgingConn struct {
	net.PacketConn
	mu     sync.Mutex
	always [][]byte                          // forged before whatever the client sends
	after  func(hello []byte) (all [][]byte) // forged after each hello of the client's
}

func (c *forgingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.always {
		_, _ = c.PacketConn.WriteTo(f, to)
	}
	n, err := c.PacketConn.WriteTo(b, to)
	if _, _, content, _, ok := cutRecord(b); ok && b[0] == recordHandshake && content[0] == typeHello {
		for _, f := range c.after(content[handshakeHeaderLen:]) {
			_, _ = c.PacketConn.WriteTo(f, to)
		}
	}
	return n, err
}

// F22: forged ClientHellos and what else of a handshake nobody has signed, from the address of an
// endpoint, before and during its handshake.
func TestForgedHellosEndNoSetUp(t *testing.T) {
	setUps := 50
	if testing.Short() {
		setUps = 5
	}
	always := [][]byte{
		whole(typeHello, 0, aHello(t, func(h *handshake.MessageClientHello) { h.CipherSuiteIDs = []uint16{1, 2} })),
		whole(typeHello, 0, aHello(t, func(h *handshake.MessageClientHello) { h.Cookie = make([]byte, 20) })),
		whole(typeHello, 1, aHello(t, func(h *handshake.MessageClientHello) { h.Cookie = make([]byte, 20) })),
		whole(typeHello, 0, aHello(t, func(h *handshake.MessageClientHello) { h.Extensions = nil })),
		aRecord(23, 0, []byte("data")),
		aRecord(recordCipherSpec, 0, []byte{1}),
		{21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40},
	}
	after := func(hello []byte) (all [][]byte) {
		for i := range 10 {
			other := bytes.Clone(hello)
			other[10] ^= byte(i + 1) // of its random
			all = append(all, whole(typeHello, 0, other), whole(typeHello, 1, other), whole(typeHello, 0, hello),
				aRecord(recordHandshake, 0, []byte{1, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0}))
		}
		return all
	}
	e := newEngine(t, nil)
	var times []time.Duration
	for range setUps {
		udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn := &forgingConn{PacketConn: udp, always: always, after: after}
		client := newClient(t, func(s *webrtc.SettingEngine) { s.SetICEUDPMux(webrtc.NewICEUDPMux(nil, conn)) })
		p := newPeer(t, e)
		begun := time.Now()
		connect(deadline(t, 10*time.Second), t, p, client)
		times = append(times, time.Since(begun))
		_ = client.GracefulClose()
		_ = p.GracefulClose()
		_ = udp.Close()
	}
	slices.Sort(times)
	t.Logf("%d set-ups, the median took %v, the longest %v", setUps, times[len(times)/2], times[len(times)-1])
	if n := e.cfg.Mux.Stats().Drops; n[netio.DropForged] == 0 {
		t.Errorf("no forged datagram was counted: %v", n)
	}
}

func FuzzGuard(f *testing.F) {
	good := aHello(f, nil)
	f.Add(whole(typeHello, 0, good), whole(typeCertificate, 1, good))
	f.Add(aMessage(typeHello, 0, good, 0, 30), aMessage(typeHello, 0, good, 30, len(good)))
	f.Add(asked("cookie"), aRecord(23, 1, good))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		g := new(guard)
		for _, d := range [][]byte{a, b, whole(typeHello, 0, good), b, a} {
			held, ok := g.admit(d)
			if !ok {
				continue
			}
			if len(held) > maxHelloParts {
				t.Fatalf("%d datagrams were held", len(held))
			}
			g.sent(d)
		}
		// Whatever came: one hello has been taken, and there is one that goes on from it.
		if !g.begun {
			t.Fatal("the hello of the endpoint was refused")
		}
	})
}
