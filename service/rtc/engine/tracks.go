package engine

import (
	"errors"
	"strings"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/forward"
)

// Takes reports whether the endpoint can receive a codec: a mime type and parameters as in
// forward.Codec; without parameters it is the first codec of that type. known is false while the
// endpoint has not described a section of the kind on which it receives.
func (p *Peer) Takes(mime, fmtp string) (takes, known bool) {
	kindName, _, _ := strings.Cut(mime, "/")
	audio := strings.EqualFold(kindName, "audio")
	c := codecOf(mime, fmtp)
	return c != nil && p.endpoint.accepts(c), p.endpoint.heard[kind(audio)]
}

// sending is a track as pion has it. What pion thinks was agreed on is not what was; see plain.
type sending struct {
	webrtc.TrackLocal

	peer    *Peer
	section *webrtc.RTPTransceiver
}

// Bind tells the track what was agreed on for its section. An endpoint that does not take the
// track's codec is no error: its answer stands all the same.
func (t *sending) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	of := binding{TrackLocalContext: c}
	if a := t.peer.agreed.byMID[t.section.Mid()]; a != nil {
		for i := range a.theirs {
			of.codecs = append(of.codecs, a.theirs[i].parameters(a.audio))
		}
		for _, x := range a.ids {
			of.extensions = append(of.extensions, webrtc.RTPHeaderExtensionParameter{URI: x.uri, ID: int(x.id)})
		}
	}
	codec, err := t.TrackLocal.Bind(of)
	if err != nil && !errors.Is(err, webrtc.ErrUnsupportedCodec) {
		return codec, err
	}
	return c.CodecParameters()[0], nil
}

// binding is what a track is bound to.
type binding struct {
	webrtc.TrackLocalContext

	codecs     []webrtc.RTPCodecParameters
	extensions []webrtc.RTPHeaderExtensionParameter
}

// CodecParameters returns the payload types to send with, our preferred first.
func (c binding) CodecParameters() []webrtc.RTPCodecParameters { return c.codecs }

// HeaderExtensions returns the header extensions to send with.
func (c binding) HeaderExtensions() []webrtc.RTPHeaderExtensionParameter { return c.extensions }

// SubscriptionConfig returns how a publication of a codec, a mime type and parameters as in
// forward.Codec, is to be sent on the section that a track is bound to. ok is false if the endpoint
// did not agree to the codec there.
func SubscriptionConfig(c webrtc.TrackLocalContext, mime, fmtp string) (
	config forward.SubscriptionConfig, params webrtc.RTPCodecParameters, ok bool,
) {
	want := codecOf(mime, fmtp)
	if want == nil {
		return config, params, false
	}
	all := c.CodecParameters()
	for i := range all {
		have := codecOf(all[i].MimeType, all[i].SDPFmtpLine)
		// The very codec, else one with the same decoder.
		if have == want || have != nil && have.family == want.family && !ok {
			params, ok = all[i], true
		}
		if have == want {
			break
		}
	}
	if !ok {
		return config, params, false
	}
	config.SSRC, config.PayloadType = uint32(c.SSRC()), uint8(params.PayloadType)
	for _, f := range params.RTCPFeedback {
		config.NACK = config.NACK || want.audio && f.Type == "nack" && f.Parameter == ""
	}
	for i := range all {
		_, name, _ := strings.Cut(all[i].MimeType, "/")
		f := format{
			pt: uint8(all[i].PayloadType), name: name, fmtp: all[i].SDPFmtpLine,
			clock: all[i].ClockRate, channels: opus.channels,
		}
		if apt, rtx := f.repairs(); rtx && apt == config.PayloadType && c.SSRCRetransmission() != 0 {
			config.Repair, config.RepairPayloadType = uint32(c.SSRCRetransmission()), f.pt
		}
		if want.audio && f.carries(config.PayloadType) {
			config.RED = f.pt
		}
	}
	for _, x := range c.HeaderExtensions() {
		if e := extensionOf(x.URI, want.audio); e != nil && x.ID >= 1 && x.ID <= maxExtension {
			*e.field(&config.Ext) = uint8(x.ID)
		}
	}
	return config, params, true
}
