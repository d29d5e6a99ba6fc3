// Package endpoint is the end user of a load run: a peer connection that signals as clients of the
// wire do, with as little behind it as carries the media of that run.
package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/logging"
	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v4"
	"github.com/pion/webrtc/v4"
)

// Header extensions that senders fill in.
const (
	extAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	extMID        = sdp.SDESMidURI
	extRID        = sdp.SDESRTPStreamIDURI
)

// What is sent, in the codecs' clocks and payload types.
const (
	opusType, opusClock               = 111, 48_000
	vp8Type, rtxType, vp8Clock        = 96, 97, 90_000
	maxChecks                         = 60   // of a candidate pair until it is given up, nudges among them
	replayWindow                      = 1024 // packets, as browsers have it
	nackRepeats                       = 10   // how often a packet is asked for: pion's generator does not see repairs
	maxChannelMessage          uint32 = 64 << 10
)

// An API makes endpoints that have all that does not differ between them in common.
type API struct {
	api         *webrtc.API
	certificate webrtc.Certificate
}

// APIConfig says what the endpoints of an API can do.
type APIConfig struct {
	Video bool                 // they know video, ask for lost packets and give transport-wide feedback
	Net   transport.Net        // their network
	Keep  func(ip net.IP) bool // the local addresses they use; nil: all
}

// NewAPI returns an API. Its endpoints have the same certificate, which saves making one for each.
func NewAPI(cfg APIConfig) (*API, error) {
	m := &webrtc.MediaEngine{}
	registry := &interceptor.Registry{}
	if err := registerMedia(m, registry, cfg.Video); err != nil {
		return nil, fmt.Errorf("register codecs: %w", err)
	}
	s := webrtc.SettingEngine{LoggerFactory: quiet{}}
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetICEMaxBindingRequests(maxChecks)
	s.SetNet(cfg.Net)
	if cfg.Keep != nil {
		s.SetIPFilter(cfg.Keep)
	}
	s.SetSRTPReplayProtectionWindow(replayWindow)
	s.SetSRTCPReplayProtectionWindow(replayWindow)
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	s.SetSCTPMaxMessageSize(maxChannelMessage)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	certificate, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s))
	return &API{api: api, certificate: *certificate}, nil
}

func registerMedia(m *webrtc.MediaEngine, registry *interceptor.Registry, video bool) error {
	if err := m.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: opusClock, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		},
		PayloadType: opusType,
	}, webrtc.RTPCodecTypeAudio); err != nil {
		return err
	}
	level := webrtc.RTPHeaderExtensionCapability{URI: extAudioLevel}
	if err := m.RegisterHeaderExtension(level, webrtc.RTPCodecTypeAudio); err != nil || !video {
		return err
	}
	for _, c := range []webrtc.RTPCodecParameters{
		{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeVP8, ClockRate: vp8Clock,
				RTCPFeedback: []webrtc.RTCPFeedback{{Type: "ccm", Parameter: "fir"}},
			},
			PayloadType: vp8Type,
		},
		{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeRTX, ClockRate: vp8Clock, SDPFmtpLine: fmt.Sprintf("apt=%d", vp8Type),
			},
			PayloadType: rtxType,
		},
	} {
		if err := m.RegisterCodec(c, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	if err := webrtc.ConfigureSimulcastExtensionHeaders(m); err != nil {
		return err
	}
	options := []nack.GeneratorOption{
		nack.GeneratorMaxNacksPerPacket(nackRepeats), nack.WithGeneratorLoggerFactory(quiet{}),
	}
	if err := webrtc.ConfigureNackWithOptions(m, registry, options, nack.WithResponderLoggerFactory(quiet{})); err != nil {
		return err
	}
	return webrtc.ConfigureTWCCSender(m, registry)
}

// quiet drops what pion says: what matters is counted.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger { return quietLog{} }

type quietLog struct{}

func (quietLog) Trace(string)          {}
func (quietLog) Tracef(string, ...any) {}
func (quietLog) Debug(string)          {}
func (quietLog) Debugf(string, ...any) {}
func (quietLog) Info(string)           {}
func (quietLog) Infof(string, ...any)  {}
func (quietLog) Warn(string)           {}
func (quietLog) Warnf(string, ...any)  {}
func (quietLog) Error(string)          {}
func (quietLog) Errorf(string, ...any) {}
