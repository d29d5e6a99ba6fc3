package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"rtcd/service/rtc/forward"
)

// What an endpoint and we agree on about codecs and header extensions is ours to decide, and pion
// has no part in it: it would let the first section of a kind decide for all that follow. It makes
// and matches sections, and is shown descriptions in which all of a kind look alike.

// plainFormats are the codecs in the descriptions that pion sees: one, and a repair stream so that
// it makes up SSRCs for those.
func plainFormats(audio bool) []format {
	c := opus
	if !audio {
		c = videoCodecs[0]
	}
	out := []format{{
		pt: c.pt, name: c.name, clock: c.clock, channels: c.channels, fmtp: c.fmtp, feedback: c.offered,
	}}
	if !audio {
		out = append(out, rtx(c.rtx, c.pt))
	}
	return out
}

// plain returns an endpoint's description as pion is to see it.
func plain(d *sdp.SessionDescription) (string, error) {
	out := *d
	out.MediaDescriptions = make([]*sdp.MediaDescription, len(d.MediaDescriptions))
	for i, m := range d.MediaDescriptions {
		if isMedia(m) {
			c := *m
			setMedia(&c, plainFormats(m.MediaName.Media == "audio"), nil)
			if direction(&c) == "" { // pion leaves such a section out of its answer
				c.Attributes = append(c.Attributes, sdp.NewPropertyAttribute(sdp.AttrKeySendRecv))
			}
			m = &c
		}
		out.MediaDescriptions[i] = m
	}
	text, err := out.Marshal()
	if err != nil {
		return "", fmt.Errorf("write description: %w", err)
	}
	return string(text), nil
}

// setMedia replaces the codecs and header extensions of a section.
func setMedia(m *sdp.MediaDescription, codecs []format, ids []extID) {
	var lines []sdp.Attribute
	m.MediaName.Formats = make([]string, len(codecs))
	repaired := false
	for i, f := range codecs {
		m.MediaName.Formats[i] = strconv.Itoa(int(f.pt))
		lines = append(lines, f.attributes()...)
		repaired = repaired || f.name == nameRTX
	}
	for _, x := range ids {
		lines = append(lines, sdp.Attribute{Key: sdp.AttrKeyExtMap, Value: fmt.Sprintf("%d %s", x.id, x.uri)})
	}
	rest := slices.DeleteFunc(slices.Clone(m.Attributes), func(a sdp.Attribute) bool {
		return a.Key == "rtpmap" || a.Key == "fmtp" || a.Key == "rtcp-fb" || a.Key == sdp.AttrKeyExtMap
	})
	// Where pion puts them: after what concerns the transport.
	at := slices.IndexFunc(m.Attributes, func(a sdp.Attribute) bool { return a.Key == "rtpmap" })
	at = min(max(at, 0), len(rest))
	m.Attributes = slices.Concat(rest[:at], lines, rest[at:])
	if !repaired {
		removeRepairs(m)
	}
}

// removeRepairs removes the SSRCs of repair streams from a section.
func removeRepairs(m *sdp.MediaDescription) {
	var gone []string
	for _, a := range m.Attributes {
		if a.Key == sdp.AttrKeySSRCGroup {
			if f := strings.Fields(a.Value); len(f) == 3 && f[0] == sdp.SemanticTokenFlowIdentification {
				gone = append(gone, f[2])
			}
		}
	}
	if len(gone) == 0 {
		return
	}
	m.Attributes = slices.DeleteFunc(m.Attributes, func(a sdp.Attribute) bool {
		ssrc, _, _ := strings.Cut(a.Value, " ")
		return a.Key == sdp.AttrKeySSRCGroup && ssrc == sdp.SemanticTokenFlowIdentification ||
			a.Key == sdp.AttrKeySSRC && slices.Contains(gone, ssrc)
	})
}

// reject makes section i of d one that is rejected (RFC 3264 section 6).
func reject(d *sdp.SessionDescription, i int, codecs []string) {
	m := d.MediaDescriptions[i]
	mid, _ := m.Attribute(sdp.AttrKeyMID)
	m.MediaName.Port.Value = 0
	m.MediaName.Formats = []string{"0"}
	if len(codecs) > 0 {
		m.MediaName.Formats = codecs[:1]
	}
	m.Attributes = []sdp.Attribute{
		{Key: sdp.AttrKeyMID, Value: mid}, sdp.NewPropertyAttribute(sdp.AttrKeyInactive),
	}
	for j, a := range d.Attributes {
		if a.Key == sdp.AttrKeyGroup {
			tags := strings.Fields(a.Value)
			tags = slices.DeleteFunc(tags, func(tag string) bool { return tag == mid })
			d.Attributes[j].Value = strings.Join(tags, " ")
		}
	}
}

// agreed is a media section as both sides have described it.
type agreed struct {
	mid    string
	audio  bool
	theirs []format // that are used, in our order
	ours   []format
	ids    []extID

	their, our *sdp.MediaDescription
}

// agreement is what two descriptions agree on.
type agreement struct {
	sections []*agreed // in the endpoint's order
	byMID    map[string]*agreed
	their    map[string]*sdp.MediaDescription // all sections of the endpoint's description
}

// agreement combines an endpoint's description with the one of ours that belongs to it.
func (m media) agreement(theirs, ours *sdp.SessionDescription) agreement {
	out := agreement{byMID: make(map[string]*agreed), their: sections(theirs)}
	mine := sections(ours)
	for _, their := range theirs.MediaDescriptions {
		mid, _ := their.Attribute(sdp.AttrKeyMID)
		our := mine[mid]
		if !isMedia(their) || our == nil || rejected(their) || rejected(our) || out.byMID[mid] != nil {
			continue
		}
		audio := their.MediaName.Media == "audio"
		codecs := m.agree(audio, formats(their))
		if len(codecs) == 0 {
			continue
		}
		s := &agreed{
			mid: mid, audio: audio, their: their, our: our,
			theirs: codecs, ours: formats(our), ids: agreeExtensions(audio, extIDs(their)),
		}
		told := extIDs(our)
		s.ids = slices.DeleteFunc(s.ids, func(x extID) bool { return !slices.Contains(told, x) })
		out.sections = append(out.sections, s)
		out.byMID[mid] = s
	}
	return out
}

// extensions returns the ids of the header extensions.
func (s *agreed) extensions() forward.Extensions {
	var e forward.Extensions
	for _, x := range s.ids {
		*extensionOf(x.uri, s.audio).field(&e) = x.id
	}
	return e
}

// answer writes our codecs into pion's answer to an endpoint's offer.
func (m media) answer(text string, theirs *sdp.SessionDescription) (*sdp.SessionDescription, error) {
	ours := &sdp.SessionDescription{}
	if err := ours.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("parse our answer: %w", err)
	}
	offered := sections(theirs)
	for i, our := range ours.MediaDescriptions {
		mid, _ := our.Attribute(sdp.AttrKeyMID)
		their := offered[mid]
		if their == nil || !isMedia(our) {
			continue
		}
		audio := our.MediaName.Media == "audio"
		codecs := m.agree(audio, formats(their))
		if i > 0 && (len(codecs) == 0 || rejected(their)) {
			reject(ours, i, their.MediaName.Formats)
			continue
		}
		if len(codecs) > 0 {
			setMedia(our, codecs, agreeExtensions(audio, extIDs(their)))
		}
	}
	return ours, nil
}

// offer writes our codecs into an offer of pion's. Sections that the endpoint knows stay as they are.
func (m media) offer(text string, have agreement, e *endpoint) (*sdp.SessionDescription, error) {
	ours := &sdp.SessionDescription{}
	if err := ours.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("parse our offer: %w", err)
	}
	for i, our := range ours.MediaDescriptions {
		if !isMedia(our) {
			continue
		}
		audio := our.MediaName.Media == "audio"
		mid, _ := our.Attribute(sdp.AttrKeyMID)
		their := have.their[mid]
		if their == nil || rejected(their) {
			setMedia(our, m.formats(audio, e), offerExtensions(audio, e))
			continue
		}
		codecs := m.agree(audio, formats(their))
		if len(codecs) == 0 && i > 0 {
			reject(ours, i, their.MediaName.Formats)
			continue
		}
		setMedia(our, codecs, agreeExtensions(audio, extIDs(their)))
	}
	return ours, nil
}

// sections returns the sections of a description by their MID.
func sections(d *sdp.SessionDescription) map[string]*sdp.MediaDescription {
	out := make(map[string]*sdp.MediaDescription, len(d.MediaDescriptions))
	for _, m := range d.MediaDescriptions {
		if mid, ok := m.Attribute(sdp.AttrKeyMID); ok && out[mid] == nil {
			out[mid] = m
		}
	}
	return out
}

// isMedia reports whether a section is of audio or video.
func isMedia(m *sdp.MediaDescription) bool {
	return m.MediaName.Media == "audio" || m.MediaName.Media == "video"
}
