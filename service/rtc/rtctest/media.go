package rtctest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/engine"
)

// media returns the codecs, extensions and interceptors of an endpoint.
func (cfg *EndpointConfig) media() (*webrtc.MediaEngine, *interceptor.Registry, error) {
	m := &webrtc.MediaEngine{}
	if err := cfg.registerCodecs(m); err != nil {
		return nil, nil, err
	}
	if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: engine.ExtAudioLevel},
		webrtc.RTPCodecTypeAudio); err != nil {
		return nil, nil, err
	}
	if cfg.Dependency {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: ExtDependency},
			webrtc.RTPCodecTypeVideo); err != nil {
			return nil, nil, err
		}
	}
	registry := &interceptor.Registry{}
	if cfg.NumberPackets {
		if err := webrtc.ConfigureTWCCHeaderExtensionSender(m, registry); err != nil {
			return nil, nil, err
		}
	}
	err := webrtc.RegisterDefaultInterceptorsWithOptions(m, registry,
		webrtc.WithInterceptorLoggerFactory(quietLogs{}),
		webrtc.WithNackGeneratorOptions(nack.GeneratorStreamsFilter(askedFor)))
	return m, registry, err
}

// askedFor reports whether pion is to ask for a stream's packets again: never, see asker.
func askedFor(*interceptor.StreamInfo) bool { return false }

// registerCodecs registers pion's default codecs, or those that are asked for.
func (cfg *EndpointConfig) registerCodecs(m *webrtc.MediaEngine) error {
	if cfg.Codecs == nil && !cfg.NoRepair && !cfg.RED && !cfg.AudioNACK {
		return m.RegisterDefaultCodecs()
	}
	if err := cfg.registerAudio(m); err != nil {
		return err
	}
	feedback := []webrtc.RTCPFeedback{
		{Type: "goog-remb"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"},
	}
	for _, c := range []struct {
		mime        string
		payloadType webrtc.PayloadType
	}{
		{webrtc.MimeTypeVP8, 96}, {webrtc.MimeTypeVP9, 98}, {webrtc.MimeTypeH264, 102}, {webrtc.MimeTypeAV1, 45},
	} {
		if cfg.Codecs != nil && !slices.ContainsFunc(cfg.Codecs, func(mime string) bool { return strings.EqualFold(mime, c.mime) }) {
			continue
		}
		if err := m.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: c.mime, ClockRate: videoClock, RTCPFeedback: feedback,
				SDPFmtpLine: formatParameters(CameraConfig{Mime: c.mime}),
			},
			PayloadType: c.payloadType,
		}, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
		if cfg.NoRepair {
			continue
		}
		if err := m.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeRTX, ClockRate: videoClock, SDPFmtpLine: fmt.Sprintf("apt=%d", c.payloadType),
			},
			PayloadType: c.payloadType + 1,
		}, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	return nil
}

// mimeRED is that of redundant audio (RFC 2198).
const mimeRED = "audio/red"

// What an endpoint's audio is sent as.
const (
	payloadOpus = 111
	payloadRED  = 63
)

func (cfg *EndpointConfig) registerAudio(m *webrtc.MediaEngine) error {
	opus := webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		},
		PayloadType: payloadOpus,
	}
	if cfg.AudioNACK {
		opus.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack"}}
	}
	if err := m.RegisterCodec(opus, webrtc.RTPCodecTypeAudio); err != nil || !cfg.RED {
		return err
	}
	return m.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: mimeRED, ClockRate: 48000, Channels: 2, SDPFmtpLine: fmt.Sprintf("%d/%d", payloadOpus, payloadOpus),
		},
		PayloadType: payloadRED,
	}, webrtc.RTPCodecTypeAudio)
}
