//go:build linux

// Package endpoint has the end users of the benchmark: pion peer connections that cost as little as
// they can, so that a machine with two cores can hold many of them beside the server.
//
// An endpoint has one socket. Its packets are read, decrypted and checked, until the kernel is told
// to drop RTP at the socket: from then on it counts what comes, and nobody has to be woken for it.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Config describes an endpoint.
type Config struct {
	ID      string
	Publish []Kind
	// Receive has whether each track that it will be sent is video, for a server that wants
	// sections for them in the offer.
	Receive []bool
	Stamps  bool // see NewSocket
}

// Endpoint is one end user.
type Endpoint struct {
	ID     string
	Socket *Socket

	pc     *webrtc.PeerConnection
	mux    *ice.UDPMuxDefault
	opened chan struct{}
	wg     sync.WaitGroup

	mu        sync.Mutex
	described bool     // the answer is there
	early     []string // candidates that came before it

	sources  []*Source
	Received Received
}

// Received is what came while the endpoint read it.
type Received struct {
	Packets atomic.Uint64
	Bad     atomic.Uint64 // of these: the checksum was wrong
	Gaps    atomic.Uint64 // the number was not the next of its track
}

// media engine and interceptors are those of a browser in what matters to a server: Opus and VP8,
// audio levels, transport-wide numbers and feedback, reports, NACK.
func newAPI(mux ice.UDPMux) (*webrtc.API, error) {
	m := &webrtc.MediaEngine{}
	feedback := []webrtc.RTCPFeedback{
		{Type: "goog-remb"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"},
	}
	err := errors.Join(
		m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		}}, webrtc.RTPCodecTypeAudio),
		m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: feedback,
		}}, webrtc.RTPCodecTypeVideo),
		m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 97, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: "apt=96",
		}}, webrtc.RTPCodecTypeVideo),
		m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: extAudioLevel}, webrtc.RTPCodecTypeAudio),
	)
	if err != nil {
		return nil, fmt.Errorf("register codecs: %w", err)
	}
	registry := &interceptor.Registry{}
	if err := webrtc.ConfigureTWCCHeaderExtensionSender(m, registry); err != nil {
		return nil, fmt.Errorf("register interceptors: %w", err)
	}
	err = webrtc.RegisterDefaultInterceptorsWithOptions(m, registry, webrtc.WithInterceptorLoggerFactory(quiet{}))
	if err != nil {
		return nil, fmt.Errorf("register interceptors: %w", err)
	}
	s := webrtc.SettingEngine{LoggerFactory: quiet{}}
	s.SetICEUDPMux(mux)
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMaxBindingRequests(60) // nudges among them
	s.SetSRTPReplayProtectionWindow(1024)
	s.SetSRTCPReplayProtectionWindow(1024)
	return webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s)), nil
}

const extAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

// New makes an endpoint that is not connected.
func New(cfg Config) (*Endpoint, error) {
	socket, err := NewSocket(cfg.Stamps)
	if err != nil {
		return nil, err
	}
	e := &Endpoint{
		ID: cfg.ID, Socket: socket, opened: make(chan struct{}),
		mux: ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: socket, Logger: quiet{}.NewLogger("")}),
	}
	api, err := newAPI(e.mux)
	if err == nil {
		e.pc, err = api.NewPeerConnection(webrtc.Configuration{})
	}
	if err == nil {
		err = e.setUp(cfg)
	}
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("make endpoint %s: %w", cfg.ID, err)
	}
	return e, nil
}

func (e *Endpoint) setUp(cfg Config) error {
	dc, err := e.pc.CreateDataChannel("calls-dc", nil)
	if err != nil {
		return err
	}
	dc.OnOpen(func() { close(e.opened) })
	e.pc.OnTrack(e.track)
	for i, k := range cfg.Publish {
		s, err := e.publish(i, k)
		if err != nil {
			return err
		}
		e.sources = append(e.sources, s)
	}
	for _, video := range cfg.Receive {
		kind := webrtc.RTPCodecTypeAudio
		if video {
			kind = webrtc.RTPCodecTypeVideo
		}
		if _, err := e.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			return err
		}
	}
	return nil
}

// StreamID is that of an endpoint's video.
func (e *Endpoint) StreamID() string { return "video-of-" + e.ID }

// Sources are what the endpoint publishes.
func (e *Endpoint) Sources() []*Source { return e.sources }

// Offer returns an offer with all candidates.
func (e *Endpoint) Offer(ctx context.Context) (string, error) {
	offer, err := e.pc.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("make an offer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(e.pc)
	if err := e.pc.SetLocalDescription(offer); err != nil {
		return "", fmt.Errorf("take our offer: %w", err)
	}
	select {
	case <-gathered:
		return e.pc.LocalDescription().SDP, nil
	case <-ctx.Done():
		return "", fmt.Errorf("candidates not gathered: %w", ctx.Err())
	}
}

// Answered takes the answer to our offer.
func (e *Endpoint) Answered(sdp string) error {
	if err := e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil {
		return fmt.Errorf("take an answer: %w", err)
	}
	e.mu.Lock()
	early := e.early
	e.early, e.described = nil, true
	e.mu.Unlock()
	for _, c := range early {
		e.addCandidate(c)
	}
	return nil
}

// Candidate takes a candidate of the server, also before the answer.
func (e *Endpoint) Candidate(c string) {
	e.mu.Lock()
	if !e.described {
		e.early = append(e.early, c)
		e.mu.Unlock()
		return
	}
	e.mu.Unlock()
	e.addCandidate(c)
}

// addCandidate adds a candidate. One that is of no use is left out: there are others.
func (e *Endpoint) addCandidate(c string) {
	_ = e.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: c})
}

// Answer takes an offer and returns the answer.
func (e *Endpoint) Answer(sdp string) (string, error) {
	if err := e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
		return "", fmt.Errorf("take an offer: %w", err)
	}
	answer, err := e.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("make an answer: %w", err)
	}
	if err := e.pc.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("take our answer: %w", err)
	}
	return answer.SDP, nil
}

// When an endpoint that is connecting is nudged: after 4, 12, 28, 60, 124 ms.
const (
	firstNudge = 4 * time.Millisecond
	nudges     = 5
)

// AwaitOpen waits for the open data channel.
func (e *Endpoint) AwaitOpen(ctx context.Context) error {
	nudge := time.NewTimer(firstNudge)
	defer nudge.Stop()
	for n := 1; ; n++ {
		select {
		case <-e.opened:
			return nil
		case <-nudge.C:
			if n <= nudges && e.pc.ICEConnectionState() == webrtc.ICEConnectionStateChecking {
				e.nudge(n)
				nudge.Reset(firstNudge << n)
			}
		case <-ctx.Done():
			return fmt.Errorf("data channel of %s did not open: %w", e.ID, ctx.Err())
		}
	}
}

// nudge makes pion look at its checks. It would nominate a pair that answered only with the next
// tick of a timer of 200 ms, unless the other side sends checks of its own, as browsers need not
// wait for either. A new candidate makes it look at once; one of TCP is paired with nothing.
func (e *Endpoint) nudge(n int) {
	e.addCandidate(fmt.Sprintf("candidate:nudge 1 tcp 1 127.0.0.1 %d typ host tcptype passive", n))
}

// track reads and checks what the server sends.
func (e *Endpoint) track(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
	e.wg.Go(func() {
		video := remote.Kind() == webrtc.RTPCodecTypeVideo
		b := make([]byte, 1600)
		var header rtp.Header
		var next uint32
		started := false
		for {
			n, _, err := remote.Read(b)
			if err != nil {
				return
			}
			size, err := header.Unmarshal(b[:n])
			if err != nil {
				e.Received.Bad.Add(1)
				continue
			}
			if header.Padding { // of a probe; it has no payload
				continue
			}
			number, ok := packetNumber(b[size:n], video)
			e.Received.Packets.Add(1)
			switch {
			case !ok:
				e.Received.Bad.Add(1)
			case started && number != next:
				e.Received.Gaps.Add(1)
			}
			next, started = number+1, true
		}
	})
}

// Close ends the endpoint.
func (e *Endpoint) Close() {
	if e.pc != nil {
		_ = e.pc.GracefulClose()
	}
	_ = e.mux.Close()
	_ = e.Socket.Close()
	e.wg.Wait()
}

// quiet drops what pion says.
type quiet struct{}

func (q quiet) NewLogger(string) logging.LeveledLogger { return q }
func (quiet) Trace(string)                             {}
func (quiet) Tracef(string, ...any)                    {}
func (quiet) Debug(string)                             {}
func (quiet) Debugf(string, ...any)                    {}
func (quiet) Info(string)                              {}
func (quiet) Infof(string, ...any)                     {}
func (quiet) Warn(string)                              {}
func (quiet) Warnf(string, ...any)                     {}
func (quiet) Error(string)                             {}
func (quiet) Errorf(string, ...any)                    {}
