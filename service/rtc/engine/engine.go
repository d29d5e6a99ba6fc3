// Package engine assembles pion for a session and hides what is peculiar to it.
//
// A Peer is a webrtc.PeerConnection that does SDP, ICE, DTLS and SCTP and never sees a media
// packet: netio takes those below ICE, and the SRTP keys come out by Keys. Its tracks exist to
// stand in descriptions. Every Peer has an API object of its own because the hooks that give the
// keys belong to it.
package engine

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/netio"
)

// Timeouts of ICE: without any packet a connection counts as disconnected after the first and has
// failed after both. Pion looks every keepAlive, and consent ends after 30 s (RFC 7675 section 5.1),
// by when the failure is to be told.
const (
	disconnectedAfter = 5 * time.Second
	failedAfter       = consent - disconnectedAfter - keepAlive - 500*time.Millisecond
	keepAlive         = 2 * time.Second
	consent           = 30 * time.Second
)

// maxMessage is the largest data channel message taken, in bytes.
const maxMessage = 64 << 10

// sctpBuffer is how much of them may wait to be read.
const sctpBuffer = 256 << 10

// Config is what an Engine is made of.
type Config struct {
	Mux      *netio.Mux
	Lite     bool          // ICE-lite (RFC 8445 section 2.5): answer checks, never send any
	Local    []netip.Addr  // addresses of this machine that candidates are made for
	IPv6     bool          // also candidates of IPv6
	Override Override      // what endpoints are told instead
	Resolver Resolver      // nil: net.DefaultResolver
	Net      transport.Net // replaces the kernel's network, for tests

	// RemoteCandidates bounds the candidates that a full agent takes from a description.
	RemoteCandidates int

	// RemoteAllowed says whether a full agent may send checks to an address. nil: all.
	RemoteAllowed func(netip.Addr) bool

	// VideoCodecs names what may be negotiated of "VP8", "AV1", "VP9" and "H264", preferred first.
	// nil: all, in that order.
	VideoCodecs []string

	Log *slog.Logger // nil: discard
}

// Engine makes peers. Its methods are safe for concurrent use.
type Engine struct {
	cfg      Config
	media    media
	codecs   *webrtc.MediaEngine  // what pion is told of them; each peer connection copies it
	local    func(ip net.IP) bool // whether an address is one of cfg.Local
	networks []webrtc.NetworkType // of candidates
	logger   logging.LoggerFactory
	udp      ice.UDPMux
	tcp      ice.TCPMux
	aliases  *aliases
	muxes    []*udpMux // what udp is made of
}

// New returns an engine over the open sockets of cfg.Mux.
func New(cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	media, err := newMedia(cfg.VideoCodecs)
	if err != nil {
		return nil, err
	}
	if cfg.Net == nil {
		// Pion would ask the kernel for all interfaces anew for every peer. Ours are those that the
		// sockets are bound to, which are open.
		if cfg.Net, err = stdnet.NewNet(); err != nil {
			return nil, fmt.Errorf("list network interfaces: %w", err)
		}
	}
	codecs, err := newMediaEngine()
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, media: media, codecs: codecs, logger: newLoggerFactory(cfg.Log), aliases: newAliases()}
	local := make(map[netip.Addr]bool, len(cfg.Local))
	for _, a := range cfg.Local {
		local[a.Unmap()] = true
	}
	e.local = func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && local[a.Unmap()]
	}
	var muxes []ice.UDPMux
	for _, conn := range cfg.Mux.UDPConns() {
		mux, err := newUDPMux(conn, e.aliases)
		if err != nil {
			return nil, err
		}
		muxes, e.muxes = append(muxes, mux), append(e.muxes, mux)
	}
	if len(muxes) == 0 {
		return nil, errors.New("no media socket")
	}
	e.udp = ice.NewMultiUDPMuxDefault(muxes...)
	if listener := cfg.Mux.TCPListener(); listener != nil {
		listener = &aliasListener{Listener: listener, aliases: e.aliases}
		e.tcp = ice.NewTCPMuxDefault(ice.TCPMuxParams{Listener: listener, Logger: e.logger.NewLogger("ice")})
	}
	e.networks = []webrtc.NetworkType{webrtc.NetworkTypeUDP4}
	if cfg.IPv6 {
		e.networks = append(e.networks, webrtc.NetworkTypeUDP6)
	}
	if e.tcp != nil {
		e.networks = append(e.networks, webrtc.NetworkTypeTCP4)
		if cfg.IPv6 {
			e.networks = append(e.networks, webrtc.NetworkTypeTCP6)
		}
	}
	return e, nil
}

// Close ends the muxes; the peers are to be closed before, the sockets after.
func (e *Engine) Close() error {
	err := e.udp.Close()
	if e.tcp != nil {
		err = errors.Join(err, e.tcp.Close())
	}
	return err
}

// NewCertificate returns a fresh DTLS certificate with an ECDSA P-256 key.
func NewCertificate() (webrtc.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return webrtc.Certificate{}, fmt.Errorf("make dtls key: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return webrtc.Certificate{}, fmt.Errorf("make dtls certificate: %w", err)
	}
	return *cert, nil
}

// NewPeer returns a peer connection with the certificate of its call. It may look
// a name up and so take up to a second.
func (e *Engine) NewPeer(ctx context.Context, cert webrtc.Certificate) (*Peer, error) {
	m, err := e.cfg.Override.resolve(ctx, e.cfg.Resolver, e.cfg.Local, e.cfg.IPv6)
	if err != nil {
		return nil, err
	}
	tap := new(keyTap)
	p := &Peer{
		mux: e.cfg.Mux, muxes: e.muxes, tcp: e.tcp, aliases: e.aliases, mapping: m, tap: tap, lite: e.cfg.Lite,
		media: e.media, endpoint: newEndpoint(),
	}
	settings, err := e.settings(tap)
	if err != nil {
		return nil, err
	}
	settings.SetICEBindingRequestHandler(p.checked)
	api := webrtc.NewAPI(
		webrtc.WithMediaEngine(e.codecs),
		webrtc.WithSettingEngine(settings),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}),
	)
	// No ICE servers: candidates that pion makes with their help have sockets of their own, which
	// the data plane does not see. Discover tells our external addresses instead.
	cfg := webrtc.Configuration{
		Certificates: []webrtc.Certificate{cert},
		BundlePolicy: webrtc.BundlePolicyMaxBundle,
		SDPSemantics: webrtc.SDPSemanticsUnifiedPlan,
	}
	pc, err := api.NewPeerConnection(cfg)
	if err != nil {
		return nil, fmt.Errorf("make peer connection: %w", err)
	}
	p.PeerConnection, p.api = pc, api
	if !p.lite {
		p.candidates = e.cfg.RemoteCandidates
	}
	return p, nil
}

// settings are those of one peer.
func (e *Engine) settings(tap *keyTap) (webrtc.SettingEngine, error) {
	s := webrtc.SettingEngine{LoggerFactory: e.logger}
	s.SetLite(e.cfg.Lite)
	s.SetICEUDPMux(&guardedMux{e.udp, new(guard)})
	if e.tcp != nil {
		s.SetICETCPMux(e.tcp)
	}
	s.SetNetworkTypes(e.networks)
	s.DisableActiveTCP(true)
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(disconnectedAfter, failedAfter, keepAlive)
	s.SetIPFilter(e.local)
	if allowed := e.cfg.RemoteAllowed; allowed != nil {
		s.SetRemoteIPFilter(func(ip net.IP) bool {
			a, ok := netip.AddrFromSlice(ip)
			return ok && allowed(a)
		})
	}
	s.SetNet(e.cfg.Net)

	// We are the DTLS server: that gives us the choice of the SRTP profile and the keys.
	if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return s, fmt.Errorf("set dtls role: %w", err)
	}
	s.SetSRTPProtectionProfiles(srtpProfiles...)
	s.SetDTLSKeyLogWriter(tap)
	s.SetDTLSServerHelloMessageHook(tap.serverHello)
	s.SetFireOnTrackBeforeFirstRTP(true) // no packet will ever come that way
	s.DetachDataChannels()               // else pion has 64 KB ready for the next message of each
	s.SetSCTPMaxMessageSize(maxMessage)
	s.SetSCTPMaxReceiveBufferSize(sctpBuffer)
	s.EnableSCTPZeroChecksum(true)
	return s, nil
}
