package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/forward"
)

// The URIs of the header extensions we know.
const (
	ExtMID        = "urn:ietf:params:rtp-hdrext:sdes:mid"
	ExtRID        = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	ExtRepairRID  = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	ExtAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	ExtTWCC       = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
	ExtSendTime   = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
	ExtDelay      = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
	ExtCapture    = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
	ExtRotation   = "urn:3gpp:video-orientation"
	ExtDependency = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)

// maxExtension is the largest id of a header extension in the one-byte form (RFC 8285 section 4.2).
const maxExtension = 14

// headerExtension is a header extension that we negotiate.
type headerExtension struct {
	uri          string
	id           uint8 // in our offers, if the endpoint does not use it otherwise
	audio, video bool
	field        func(*forward.Extensions) *uint8
}

var extensions = []headerExtension{
	{ExtAudioLevel, 1, true, false, func(e *forward.Extensions) *uint8 { return &e.AudioLevel }},
	{ExtTWCC, 3, true, true, func(e *forward.Extensions) *uint8 { return &e.TWCC }},
	{ExtMID, 4, true, true, func(e *forward.Extensions) *uint8 { return &e.MID }},
	{ExtRID, 10, false, true, func(e *forward.Extensions) *uint8 { return &e.RID }},
	{ExtRepairRID, 11, false, true, func(e *forward.Extensions) *uint8 { return &e.RepairRID }},
	{ExtSendTime, 2, true, true, func(e *forward.Extensions) *uint8 { return &e.SendTime }},
	{ExtCapture, 9, true, true, func(e *forward.Extensions) *uint8 { return &e.Capture }},
	{ExtDelay, 5, false, true, func(e *forward.Extensions) *uint8 { return &e.Delay }},
	{ExtRotation, 13, false, true, func(e *forward.Extensions) *uint8 { return &e.Rotation }},
	{ExtDependency, 12, false, true, func(e *forward.Extensions) *uint8 { return &e.Dependency }},
}

// extensionOf returns the extension of uri, nil if it is none that sections of the kind have.
func extensionOf(uri string, audio bool) *headerExtension {
	for i := range extensions {
		if e := &extensions[i]; e.uri == uri && (audio && e.audio || !audio && e.video) {
			return e
		}
	}
	return nil
}

// feedback is a set of the RTCP feedback that we know (RFC 4585 section 4.2).
type feedback uint8

const (
	feedbackREMB feedback = 1 << iota
	feedbackFIR
	feedbackNACK
	feedbackPLI
	feedbackTWCC

	feedbackVideo = feedbackREMB | feedbackFIR | feedbackNACK | feedbackPLI | feedbackTWCC
)

// feedbackNames are the values of a=rtcp-fb lines, by bit and in the order of our descriptions.
var feedbackNames = []string{"goog-remb", "ccm fir", "nack", "nack pli", "transport-cc"}

// feedbackOf returns the feedback of that name, 0 if we do not know it.
func feedbackOf(name string) feedback {
	if i := slices.Index(feedbackNames, name); i >= 0 {
		return 1 << i
	}
	return 0
}

// The names of what stands beside the codecs.
const (
	nameRTX = "rtx"
	nameRED = "red"
)

// codec is a codec that we negotiate.
type codec struct {
	name     string
	profile  string // tells codecs of the same name apart
	family   string // codecs of one family are decoded by the same decoders
	audio    bool
	clock    uint32 // Hz
	channels string // as in a=rtpmap; "": not told
	fmtp     string // of our offers

	// Payload types of our offers, if the endpoint does not use them otherwise. Those of browsers,
	// so that few have to renumber.
	pt, rtx uint8

	accepted, offered feedback
}

var (
	opus = &codec{
		name: "opus", family: "opus", audio: true, clock: 48000, channels: "2",
		fmtp: "minptime=10;useinbandfec=1", pt: 111,
		accepted: feedbackTWCC | feedbackNACK, offered: feedbackTWCC,
	}
	// In the order in which they are preferred.
	videoCodecs = []*codec{
		video("VP8", "", "VP8", "", 96, 97),
		video("AV1", "0", "AV1", "", 45, 46),
		video("VP9", "0", "VP9", "profile-id=0", 98, 99),
		video("H264", "42e0", "H264 baseline", h264("42e01f"), 106, 107),
		video("H264", "6400", "H264 high", h264("64001f"), 112, 113), // of Chromium
		video("H264", "640c", "H264 high", h264("640c1f"), 114, 115), // of WebKit: constrained
	}
)

// The payload type of redundant audio (RFC 2198) in our offers.
const payloadRED = 63

func video(name, profile, family, fmtp string, pt, rtx uint8) *codec {
	return &codec{
		name: name, profile: profile, family: family, clock: 90000, fmtp: fmtp, pt: pt, rtx: rtx,
		accepted: feedbackVideo, offered: feedbackVideo,
	}
}

func h264(profileLevel string) string {
	return "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + profileLevel
}

func mime(audio bool, name string) string {
	if audio {
		return "audio/" + name
	}
	return "video/" + name
}

// key names the codec among all.
func (c *codec) key() string { return c.name + " " + c.profile }

// is reports whether a payload type with that name and those parameters is the codec.
func (c *codec) is(name, fmtp string) bool {
	if !strings.EqualFold(name, c.name) {
		return false
	}
	switch c.name {
	case "H264":
		// Both are to be the same on both sides but for the level (RFC 6184 section 8.2.2). Without
		// the first the packets are of mode 0.
		profile := parameter(fmtp, "profile-level-id")
		return parameter(fmtp, "packetization-mode") == "1" &&
			len(profile) == 6 && strings.EqualFold(profile[:4], c.profile)
	case "VP9":
		profile := parameter(fmtp, "profile-id") // RFC 9628 section 7
		return profile == c.profile || profile == ""
	case "AV1":
		profile := parameter(fmtp, "profile") // AV1 RTP payload format, section 7.2
		return profile == c.profile || profile == ""
	default:
		return true
	}
}

// parameter returns the value of a parameter of an a=fmtp line, "" if it has none.
func parameter(fmtp, name string) string {
	for p := range strings.SplitSeq(fmtp, ";") {
		if key, value, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}

// codecOf returns the codec of a mime type and parameters as in a description, nil if it is none of
// ours. A mime type alone stands for the first codec of that name.
func codecOf(mime, fmtp string) *codec {
	kind, name, _ := strings.Cut(mime, "/")
	if strings.EqualFold(kind, "audio") {
		if opus.is(name, fmtp) {
			return opus
		}
		return nil
	}
	for _, c := range videoCodecs {
		if strings.EqualFold(kind, "video") &&
			(c.is(name, fmtp) || fmtp == "" && strings.EqualFold(name, c.name)) {
			return c
		}
	}
	return nil
}

// media is what an engine negotiates, in the order of its preference.
type media struct{ audio, video []*codec }

// newMedia returns the codecs of those names; all if there are none.
func newMedia(names []string) (media, error) {
	m := media{audio: []*codec{opus}, video: videoCodecs}
	if names == nil {
		return m, nil
	}
	m.video = nil
	for _, name := range names {
		n := len(m.video)
		for _, c := range videoCodecs {
			if strings.EqualFold(c.name, name) && !slices.Contains(m.video[:n], c) {
				m.video = append(m.video, c)
			}
		}
		if n == len(m.video) {
			return media{}, fmt.Errorf("video codec %q: not known, or named twice", name)
		}
	}
	if len(m.video) == 0 {
		return media{}, fmt.Errorf("video codecs: none is named")
	}
	return m, nil
}

func (m media) of(audio bool) []*codec {
	if audio {
		return m.audio
	}
	return m.video
}

// newMediaEngine returns what pion has to know of media: enough for it to make sections. The lines
// of codecs and header extensions are ours; see plain.
func newMediaEngine() (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	for _, f := range plainFormats(true) {
		if err := m.RegisterCodec(f.parameters(true), webrtc.RTPCodecTypeAudio); err != nil {
			return nil, fmt.Errorf("register codec %s: %w", f.name, err)
		}
	}
	for _, f := range plainFormats(false) {
		if err := m.RegisterCodec(f.parameters(false), webrtc.RTPCodecTypeVideo); err != nil {
			return nil, fmt.Errorf("register codec %s: %w", f.name, err)
		}
	}
	return m, nil
}
