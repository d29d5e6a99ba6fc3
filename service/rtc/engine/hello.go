package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"slices"
	"sync"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/elliptic"
	"github.com/pion/dtls/v3/pkg/protocol"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/ice/v4"
)

// Bounds of what is taken of a handshake before anything of it is authentic.
const (
	recordHeaderLen    = 13 // RFC 6347 section 4.1
	handshakeHeaderLen = 12 // RFC 6347 section 4.2.2
	maxHello           = 4 << 10
	maxHandshake       = 16 << 10 // bytes of another message, such as a chain of certificates
	maxHandshakeSeq    = 16       // messages of the endpoint
	maxHelloParts      = 8        // datagrams of one hello
)

// Content types of records, and types of messages of a handshake.
const (
	recordCipherSpec  = 20
	recordHandshake   = 22
	typeHello         = 1
	typeHelloVerify   = 3
	typeCertificate   = 11
	typeVerify        = 15
	typeKeyExchange   = 16
	cipherSpecContent = 1
)

// helloSuites are those of pion's cipher suites that go with a certificate of ECDSA, which ours are.
var helloSuites = []uint16{
	uint16(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
	uint16(dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
	uint16(dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA),
	uint16(dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
}

var helloCurves = []elliptic.Curve{elliptic.X25519, elliptic.P256, elliptic.P384}

// A guard stands before the DTLS server of one peer. Anybody who knows the endpoint's address may send
// in its name, and pion gives a handshake up for much that nobody has signed: a ClientHello without
// anything in common with us, one with a wrong cookie, a second one that differs from the first,
// application data in the clear. RFC 6347 section 4.1.2.7 would have such records dropped, which is what the
// guard does. Of ClientHellos it lets pass
//
//   - the first one that pion could go on with, and what repeats it,
//   - with the cookie that pion has asked for, the first one that is the same but for its cookie and its
//     extensions, and what repeats it.
//
// Nothing else of the handshake passes before the latter. Only who receives at the endpoint's address
// knows the cookie.
type guard struct {
	mu       sync.Mutex
	begun    bool
	first    [sha256.Size]byte // the ClientHello without a cookie
	core     [sha256.Size]byte // what must not change of it
	cookie   []byte            // that pion has asked for
	verified bool
	second   [sha256.Size]byte // the ClientHello with it
	parts    [2]helloParts     // of hellos in several fragments
}

// helloParts is a hello of which fragments are missing.
type helloParts struct {
	length    int
	body      []byte
	datagrams [][]byte
}

// A message is one of a handshake, or a fragment of it.
type message struct {
	kind                byte
	seq, length, offset int
	body                []byte
}

// cutMessage takes the first message off the content of a record.
func cutMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < handshakeHeaderLen {
		return m, nil, false
	}
	uint24 := func(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }
	m = message{kind: b[0], length: uint24(b[1:]), seq: int(binary.BigEndian.Uint16(b[4:])), offset: uint24(b[6:])}
	n := uint24(b[9:])
	b = b[handshakeHeaderLen:]
	if n > len(b) || m.offset+n > m.length || n == 0 && m.length > 0 {
		return m, nil, false
	}
	m.body = b[:n]
	return m, b[n:], true
}

// cutRecord takes the first record off a datagram.
func cutRecord(b []byte) (kind byte, epoch uint16, content, rest []byte, ok bool) {
	if len(b) < recordHeaderLen {
		return 0, 0, nil, nil, false
	}
	kind, epoch = b[0], binary.BigEndian.Uint16(b[3:])
	n := int(binary.BigEndian.Uint16(b[11:]))
	b = b[recordHeaderLen:]
	if n == 0 || n > len(b) {
		return 0, 0, nil, nil, false
	}
	return kind, epoch, b[:n], b[n:], true
}

// admit judges a datagram of DTLS that the endpoint may have sent. What is to be handed on is the
// datagram, or unless held is nil, those in it: none while fragments of a hello are missing.
func (g *guard) admit(b []byte) (held [][]byte, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for rest := b; len(rest) > 0; {
		var kind byte
		var epoch uint16
		var content []byte
		if kind, epoch, content, rest, ok = cutRecord(rest); !ok {
			return nil, false
		}
		switch {
		case epoch > 0: // encrypted; over TCP there may have been a handshake that was not seen here
			ok = g.verified || !g.begun
		case kind == recordCipherSpec:
			ok = g.verified && len(content) == 1 && content[0] == cipherSpecContent
		case kind != recordHandshake:
			ok = false
		default:
			m, more, whole := cutMessage(content)
			if whole && m.kind == typeHello { // nobody has anything to say beside it
				if len(more) > 0 || len(b) != recordHeaderLen+len(content) {
					return nil, false
				}
				return g.hello(&m, b)
			}
			ok = g.verified && afterHello(content)
		}
		if !ok {
			return nil, false
		}
	}
	return nil, true
}

// afterHello reports whether a record holds nothing but what follows a ClientHello in the clear.
func afterHello(content []byte) bool {
	for len(content) > 0 {
		m, rest, ok := cutMessage(content)
		if !ok || m.length > maxHandshake || m.seq > maxHandshakeSeq {
			return false
		}
		if m.kind != typeCertificate && m.kind != typeVerify && m.kind != typeKeyExchange {
			return false
		}
		content = rest
	}
	return true
}

// hello judges a ClientHello, or keeps a fragment of one until it is whole.
func (g *guard) hello(m *message, datagram []byte) (held [][]byte, ok bool) {
	if m.seq > 1 || m.length > maxHello {
		return nil, false
	}
	if len(m.body) == m.length {
		return nil, g.judge(m.seq, m.body)
	}
	p := &g.parts[m.seq]
	if m.offset == 0 {
		*p = helloParts{length: m.length}
	}
	if m.length != p.length || m.offset != len(p.body) || len(p.datagrams) == maxHelloParts {
		return nil, false
	}
	p.body = append(p.body, m.body...)
	p.datagrams = append(p.datagrams, bytes.Clone(datagram))
	if len(p.body) < p.length {
		return [][]byte{}, true
	}
	all := *p
	*p = helloParts{}
	return all.datagrams, g.judge(m.seq, all.body)
}

// judge reports whether pion may have a whole ClientHello.
func (g *guard) judge(seq int, body []byte) bool {
	var h handshake.MessageClientHello
	if h.Unmarshal(body) != nil || !acceptable(&h) {
		return false
	}
	sum, cookie := sha256.Sum256(body), h.Cookie
	h.Cookie, h.Extensions = nil, nil
	raw, err := h.Marshal()
	if err != nil {
		return false
	}
	core := sha256.Sum256(raw)
	switch {
	case seq == 0 && len(cookie) > 0:
		return false
	case seq == 0 && !g.begun:
		g.begun, g.first, g.core = true, sum, core
	case seq == 0:
		return sum == g.first
	case g.verified:
		return sum == g.second
	case g.cookie == nil || !bytes.Equal(cookie, g.cookie) || core != g.core:
		return false
	default:
		g.verified, g.second = true, sum
	}
	return true
}

// acceptable reports whether a handshake can begin with a ClientHello, by all that pion asks of one.
func acceptable(h *handshake.MessageClientHello) bool {
	shares := func(id uint16) bool { return slices.Contains(helloSuites, id) }
	if !h.Version.Equal(protocol.Version1_2) || len(h.CompressionMethods) == 0 || !slices.ContainsFunc(h.CipherSuiteIDs, shares) {
		return false
	}
	srtp := false
	for _, e := range h.Extensions {
		switch e := e.(type) {
		case *extension.SupportedEllipticCurves:
			if !slices.ContainsFunc(e.EllipticCurves, func(c elliptic.Curve) bool { return slices.Contains(helloCurves, c) }) {
				return false
			}
		case *extension.UseSRTP:
			srtp = slices.ContainsFunc(e.ProtectionProfiles, func(p dtls.SRTPProtectionProfile) bool {
				return slices.Contains(srtpProfiles, p)
			})
			if !srtp {
				return false
			}
		}
	}
	return srtp
}

// sent learns the cookie that pion asks for from what it sends.
func (g *guard) sent(b []byte) {
	kind, epoch, content, _, ok := cutRecord(b)
	if !ok || kind != recordHandshake || epoch != 0 {
		return
	}
	m, _, ok := cutMessage(content)
	if !ok || m.kind != typeHelloVerify || len(m.body) < 3 || len(m.body) != 3+int(m.body[2]) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cookie = bytes.Clone(m.body[3:])
}

// isDTLS reports whether a datagram is to be DTLS (RFC 7983).
func isDTLS(b []byte) bool { return len(b) > 0 && b[0] >= 20 && b[0] <= 63 }

// guardedMux gives a peer its shares of the sockets, behind its guard.
type guardedMux struct {
	ice.UDPMux
	guard *guard
}

// GetConn returns what the agent of that user name sends and receives with.
func (m *guardedMux) GetConn(name string, local net.Addr) (net.PacketConn, error) {
	conn, err := m.UDPMux.GetConn(name, local)
	if c, ok := conn.(*udpConn); ok {
		c.guard.Store(m.guard) // before the endpoint can know the name
	}
	return conn, err
}
