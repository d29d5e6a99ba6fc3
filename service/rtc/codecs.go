package rtc

import (
	"slices"
	"strings"

	"github.com/pion/webrtc/v4"

	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
)

// orderRIDs returns the encodings of a simulcast from the cheapest to the best: by the names that
// are in use for that, else as the description lists them, which is that order with all browsers.
func orderRIDs(rids []string) []string {
	for _, names := range [...][]string{
		{"l", "m", "h"}, {"q", "h", "f"}, {"low", "mid", "high"}, {"low", "medium", "high"},
		{"s", "m", "l"}, {"quarter", "half", "full"},
	} {
		if !slices.ContainsFunc(rids, func(r string) bool { return !slices.Contains(names, r) }) {
			rids = slices.Clone(rids)
			slices.SortFunc(rids, func(a, b string) int { return slices.Index(names, a) - slices.Index(names, b) })
			return rids
		}
	}
	return rids
}

// A codec of a publication, as descriptions name it.
type codecName struct{ mime, fmtp string }

// choose returns which of the publications of one source a session is sent, all of them in
// different codecs: AV1 if the session said that it can, else VP8, else what it takes. nil if that
// is none.
func (s *session) choose(of []*publication) *publication {
	var best *publication
	rank := 0
	for _, p := range of {
		if r := s.preference(p); r > rank {
			best, rank = p, r
		}
	}
	return best
}

// preference ranks a publication for the session; 0: it is not to be sent.
func (s *session) preference(p *publication) int {
	if s.untaken[p.codec] {
		return 0
	}
	takes, known := s.peer.Takes(p.codec.mime, p.codec.fmtp)
	if known && !takes {
		return 0
	}
	saysAV1 := s.info.AV1Support != nil && *s.info.AV1Support
	switch {
	case isAV1(p.codec.mime) && saysAV1:
		return 4
	case strings.EqualFold(p.codec.mime, webrtc.MimeTypeVP8):
		return 3
	case isAV1(p.codec.mime):
		return 0 // only those that say so get AV1, also if their browser lists it
	default:
		return 2
	}
}

func isAV1(mime string) bool { return strings.EqualFold(mime, webrtc.MimeTypeAV1) }

func kindOf(s forward.Source) webrtc.RTPCodecType {
	if s == forward.Voice || s == forward.ScreenAudio {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

func metricCodec(mime string) metrics.Codec {
	switch strings.ToLower(mime) {
	case "video/vp8":
		return metrics.VP8
	case "video/av1":
		return metrics.AV1
	case "video/vp9":
		return metrics.VP9
	case "video/h264":
		return metrics.H264
	default:
		return metrics.Opus
	}
}
