package engine

import (
	"fmt"

	"github.com/pion/webrtc/v4"
)

// The URIs of the header extensions we know.
const (
	ExtMID        = "urn:ietf:params:rtp-hdrext:sdes:mid"
	ExtRID        = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	ExtRepairRID  = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	ExtAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	ExtTWCC       = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
)

// The codecs of the wire, in the order of our offers.
var (
	audioCodecs = []webrtc.RTPCodecParameters{{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
			SDPFmtpLine:  "minptime=10;useinbandfec=1",
			RTCPFeedback: []webrtc.RTCPFeedback{{Type: "transport-cc"}},
		},
		PayloadType: 111,
	}}
	videoFeedback = []webrtc.RTCPFeedback{
		{Type: "goog-remb"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"},
		{Type: "nack", Parameter: "pli"}, {Type: "transport-cc"},
	}
	videoCodecs = []webrtc.RTPCodecParameters{
		{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: videoFeedback,
			},
			PayloadType: 96,
		},
		{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeAV1, ClockRate: 90000, RTCPFeedback: videoFeedback,
			},
			PayloadType: 45,
		},
	}
	audioExtensions = []string{ExtAudioLevel, ExtTWCC}
	videoExtensions = []string{ExtMID, ExtRID, ExtRepairRID, ExtTWCC}
)

// newMediaEngine returns the codecs and extensions of one peer connection. What a negotiation
// agrees on is kept in it, so it is not shared.
func newMediaEngine() (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	for kind, codecs := range map[webrtc.RTPCodecType][]webrtc.RTPCodecParameters{
		webrtc.RTPCodecTypeAudio: audioCodecs,
		webrtc.RTPCodecTypeVideo: videoCodecs,
	} {
		for _, c := range codecs {
			if err := m.RegisterCodec(c, kind); err != nil {
				return nil, fmt.Errorf("register codec %s: %w", c.MimeType, err)
			}
		}
	}
	register := func(uris []string, kind webrtc.RTPCodecType) error {
		for _, uri := range uris {
			ext := webrtc.RTPHeaderExtensionCapability{URI: uri}
			if err := m.RegisterHeaderExtension(ext, kind); err != nil {
				return fmt.Errorf("register header extension %s: %w", uri, err)
			}
		}
		return nil
	}
	if err := register(audioExtensions, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, err
	}
	if err := register(videoExtensions, webrtc.RTPCodecTypeVideo); err != nil {
		return nil, err
	}
	return m, nil
}
