package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// maxFmtp is the length of a line of parameters above which it is as if it were not there.
const maxFmtp = 1024

// format is a payload type of a section.
type format struct {
	pt       uint8
	name     string
	clock    uint32
	channels string
	fmtp     string
	feedback feedback
}

// formats returns the payload types of a section in the order of its m= line.
func formats(m *sdp.MediaDescription) []format {
	var all []format
	var at [128]uint8 // where each payload type is in all, and 1; 0: nowhere
	var mapped [128]bool
	var wildcard feedback
	for _, a := range m.Attributes {
		if a.Key != "rtpmap" && a.Key != "fmtp" && a.Key != "rtcp-fb" {
			continue
		}
		number, value, _ := strings.Cut(a.Value, " ")
		value = strings.TrimSpace(value)
		if a.Key == "rtcp-fb" && number == "*" {
			wildcard |= feedbackOf(value)
			continue
		}
		n, err := strconv.ParseUint(number, 10, 7)
		if err != nil {
			continue
		}
		if at[n] == 0 {
			all = append(all, format{})
			at[n] = uint8(len(all))
		}
		f := &all[at[n]-1]
		switch {
		case a.Key == "rtcp-fb":
			f.feedback |= feedbackOf(value)
		case a.Key == "fmtp" && f.fmtp == "" && len(value) <= maxFmtp:
			f.fmtp = value
		case a.Key == "rtpmap" && !mapped[n]:
			name, rest, _ := strings.Cut(value, "/")
			rate, channels, _ := strings.Cut(rest, "/")
			if r, err := strconv.ParseUint(rate, 10, 32); err == nil {
				f.pt, f.name, f.clock, f.channels, mapped[n] = uint8(n), name, uint32(r), channels, true
			}
		}
	}
	var out []format
	for _, number := range m.MediaName.Formats {
		n, err := strconv.ParseUint(number, 10, 7)
		if err != nil || !mapped[n] {
			continue
		}
		mapped[n] = false // once
		f := all[at[n]-1]
		f.feedback |= wildcard
		out = append(out, f)
	}
	return out
}

// codec returns which of ours the format is, nil if it is none.
func (f *format) codec(audio bool) *codec {
	c := codecOf(mime(audio, f.name), f.fmtp)
	if c == nil || !c.is(f.name, f.fmtp) || c.clock != f.clock {
		return nil
	}
	if c.channels != f.channels && (c.channels != "" || f.channels != "1") { // RFC 8866 section 6.6
		return nil
	}
	return c
}

// repairs returns the payload type whose repair stream has this one (RFC 4588 section 8.1).
func (f *format) repairs() (pt uint8, ok bool) {
	if !strings.EqualFold(f.name, nameRTX) {
		return 0, false
	}
	n, err := strconv.ParseUint(parameter(f.fmtp, "apt"), 10, 7)
	return uint8(n), err == nil
}

// carries reports whether the format is redundant audio of nothing but that payload type.
func (f *format) carries(pt uint8) bool {
	if !strings.EqualFold(f.name, nameRED) || f.clock != opus.clock || f.channels != opus.channels {
		return false
	}
	for block := range strings.SplitSeq(f.fmtp, "/") {
		if f.fmtp != "" && block != strconv.Itoa(int(pt)) {
			return false
		}
	}
	return true
}

func rtx(pt, apt uint8) format {
	return format{pt: pt, name: nameRTX, clock: 90000, fmtp: fmt.Sprintf("apt=%d", apt)}
}

func red(pt, of uint8) format {
	return format{
		pt: pt, name: nameRED, clock: opus.clock, channels: opus.channels,
		fmtp: fmt.Sprintf("%d/%d", of, of),
	}
}

// agree returns what of an endpoint's payload types is used, in the order of our preference: that
// of an answer decides what browsers send.
func (m media) agree(audio bool, theirs []format) []format {
	var out []format
	for _, c := range m.of(audio) {
		i := slices.IndexFunc(theirs, func(f format) bool { return f.codec(audio) == c })
		if i < 0 {
			continue
		}
		f := theirs[i]
		f.name = c.name
		f.feedback &= c.accepted
		out = append(out, f)
		for j, aux := range theirs {
			switch pt, ok := aux.repairs(); {
			case ok && pt == f.pt && c.rtx != 0:
				out = append(out, rtx(aux.pt, f.pt))
			case c == opus && aux.carries(f.pt) && j < i:
				out = slices.Insert(out, len(out)-1, red(aux.pt, f.pt))
			case c == opus && aux.carries(f.pt):
				out = append(out, red(aux.pt, f.pt))
			default:
				continue
			}
			break // one of them is enough
		}
	}
	return out
}

// formats returns what we offer an endpoint in a new section.
func (m media) formats(audio bool, e *endpoint) []format {
	var out []format
	for _, c := range m.of(audio) {
		pt := e.payloadType(c.key(), c.pt)
		f := format{pt: pt, name: c.name, clock: c.clock, channels: c.channels, fmtp: c.fmtp, feedback: c.offered}
		if c == opus && e.nack {
			f.feedback |= feedbackNACK
		}
		out = append(out, f)
		if c.rtx != 0 {
			out = append(out, rtx(e.payloadType(keyRTX(c), c.rtx), pt))
		}
		if c == opus && e.red != 0 {
			r := red(e.payloadType(nameRED, payloadRED), pt)
			if e.red < 0 {
				out = slices.Insert(out, len(out)-1, r)
			} else {
				out = append(out, r)
			}
		}
	}
	return out
}

func keyRTX(c *codec) string { return nameRTX + " " + c.key() }

// parameters returns the format as pion has them.
func (f *format) parameters(audio bool) webrtc.RTPCodecParameters {
	channels, _ := strconv.ParseUint(f.channels, 10, 16)
	p := webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: mime(audio, f.name), ClockRate: f.clock, Channels: uint16(channels), SDPFmtpLine: f.fmtp,
		},
		PayloadType: webrtc.PayloadType(f.pt),
	}
	for _, name := range f.feedback.names() {
		key, param, _ := strings.Cut(name, " ")
		p.RTCPFeedback = append(p.RTCPFeedback, webrtc.RTCPFeedback{Type: key, Parameter: param})
	}
	return p
}

func (f feedback) names() []string {
	var out []string
	for i, name := range feedbackNames {
		if f&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// attributes returns the lines of the format.
func (f *format) attributes() []sdp.Attribute {
	value := fmt.Sprintf("%d %s/%d", f.pt, f.name, f.clock)
	if f.channels != "" {
		value += "/" + f.channels
	}
	out := []sdp.Attribute{{Key: "rtpmap", Value: value}}
	if f.fmtp != "" {
		out = append(out, sdp.Attribute{Key: "fmtp", Value: fmt.Sprintf("%d %s", f.pt, f.fmtp)})
	}
	for _, name := range f.feedback.names() {
		out = append(out, sdp.Attribute{Key: "rtcp-fb", Value: fmt.Sprintf("%d %s", f.pt, name)})
	}
	return out
}

// extID is the id of a header extension in a section.
type extID struct {
	uri string
	id  uint8
}

// extIDs returns the header extensions of a section that one-byte headers can carry.
func extIDs(m *sdp.MediaDescription) []extID {
	var out []extID
	for _, a := range m.Attributes {
		if a.Key != sdp.AttrKeyExtMap {
			continue
		}
		id, rest, _ := strings.Cut(a.Value, " ")
		id, _, _ = strings.Cut(id, "/") // direction
		uri, _, _ := strings.Cut(rest, " ")
		if n, err := strconv.ParseUint(id, 10, 8); err == nil && n >= 1 && n <= maxExtension {
			out = append(out, extID{uri, uint8(n)})
		}
	}
	return out
}

// agreeExtensions returns which of an endpoint's header extensions are used.
func agreeExtensions(audio bool, theirs []extID) []extID {
	var out []extID
	for _, e := range theirs {
		if extensionOf(e.uri, audio) == nil ||
			slices.ContainsFunc(out, func(o extID) bool { return o.uri == e.uri || o.id == e.id }) {
			continue
		}
		out = append(out, e)
	}
	return out
}

// offerExtensions returns those that we offer an endpoint in a new section.
func offerExtensions(audio bool, e *endpoint) []extID {
	var out []extID
	for i := range extensions {
		if x := &extensions[i]; audio && x.audio || !audio && x.video {
			if id := e.extensionID(x); id != 0 {
				out = append(out, extID{x.uri, id})
			}
		}
	}
	return out
}
