package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"rtcd/service/rtc/forward"
)

// Limits on what is taken from one section of a description.
const (
	maxSSRCs    = 16
	maxRIDs     = 4
	maxRIDLines = 16
)

// Section is a media section on which the endpoint may send.
type Section struct {
	forward.Uplink
	StreamID string // of a=msid
	TrackID  string
}

// Sections returns the sections on which the endpoint may send after the descriptions in force.
// Payload types and extension ids are those that our description says, because that is what the
// endpoint has to use (RFC 3264 section 6.1).
func (p *Peer) Sections() []Section {
	var out []Section
	for _, a := range p.agreed.sections {
		if directed(a.their, sdp.AttrKeySendOnly) && directed(a.our, sdp.AttrKeyRecvOnly) {
			out = append(out, a.section())
		}
	}
	return out
}

// section combines what the endpoint sends with what we said it may use.
func (a *agreed) section() Section {
	s := Section{Uplink: forward.Uplink{MID: a.mid, Audio: a.audio, Ext: a.extensions()}}
	streams := 0
	for _, line := range a.their.Attributes {
		switch line.Key {
		case sdp.AttrKeyMsid:
			stream, track, _ := strings.Cut(line.Value, " ")
			if s.StreamID == "" {
				s.StreamID, s.TrackID = stream, track
			}
		case sdp.AttrKeySSRC:
			id, _, _ := strings.Cut(line.Value, " ")
			if n, err := strconv.ParseUint(id, 10, 32); err == nil &&
				len(s.SSRCs) < maxSSRCs && !slices.Contains(s.SSRCs, uint32(n)) {
				s.SSRCs = append(s.SSRCs, uint32(n))
			}
		case sdp.AttrKeySSRCGroup:
			if streams++; streams <= maxSSRCs {
				s.repair(line.Value)
			}
		}
	}
	for i := range a.theirs {
		s.REMB = s.REMB || !a.audio && a.theirs[i].feedback&feedbackREMB != 0
	}
	s.RIDs = rids(a.their)
	for _, f := range a.ours {
		c := forward.Codec{PayloadType: f.pt, Mime: mime(a.audio, f.name), Fmtp: f.fmtp, ClockRate: f.clock}
		if apt, ok := f.repairs(); ok {
			c.Repairs = apt
		}
		s.Codecs = append(s.Codecs, c)
		s.NACK = s.NACK || a.audio && f.feedback&feedbackNACK != 0
	}
	return s
}

// repair notes what a group of SSRCs says of repair streams (RFC 4588 section 8.8).
func (s *Section) repair(group string) {
	f := strings.Fields(group)
	if len(f) != 3 || f[0] != sdp.SemanticTokenFlowIdentification {
		return
	}
	of, err := strconv.ParseUint(f[1], 10, 32)
	by, err2 := strconv.ParseUint(f[2], 10, 32)
	if err != nil || err2 != nil || of == by {
		return
	}
	if s.Repairs == nil {
		s.Repairs = make(map[uint32]uint32)
	}
	s.Repairs[uint32(by)] = uint32(of)
}

// rids returns the RIDs that the endpoint may send, in the order in which a=simulcast lists them
// (RFC 8853 section 5.1), else in that of the a=rid lines.
func rids(m *sdp.MediaDescription) []string {
	var declared, listed []string
	simulcast := ""
	for _, a := range m.Attributes {
		switch a.Key {
		case "rid":
			id, rest, _ := strings.Cut(a.Value, " ")
			way, _, _ := strings.Cut(rest, " ")
			if way == "send" && len(declared) < maxRIDLines && !slices.Contains(declared, id) {
				declared = append(declared, id)
			}
		case "simulcast":
			if f := strings.Fields(a.Value); simulcast == "" {
				if i := slices.Index(f, "send"); i >= 0 && i+1 < len(f) {
					simulcast = f[i+1]
				}
			}
		}
	}
	for streams := range strings.SplitSeq(simulcast, ";") {
		for id := range strings.SplitSeq(streams, ",") {
			id = strings.TrimPrefix(id, "~") // paused
			if slices.Contains(declared, id) && !slices.Contains(listed, id) {
				listed = append(listed, id)
			}
		}
	}
	if len(listed) == 0 {
		listed = declared
	}
	return listed[:min(len(listed), maxRIDs)]
}

// rejected reports whether a section is not in use. One that is bundle-only has no port of its own
// (RFC 9143 section 6).
func rejected(m *sdp.MediaDescription) bool {
	_, bundled := m.Attribute("bundle-only")
	return m.MediaName.Port.Value == 0 && !bundled
}

// directed reports whether a section is not rejected and is sendrecv, which is also what it is if
// it does not say, or has the one direction.
func directed(m *sdp.MediaDescription, one string) bool {
	d := direction(m)
	return !rejected(m) && (d == "" || d == sdp.AttrKeySendRecv || d == one)
}

// direction returns the direction that a section says, "" if it does not.
func direction(m *sdp.MediaDescription) string {
	for _, a := range m.Attributes {
		switch a.Key {
		case sdp.AttrKeySendRecv, sdp.AttrKeySendOnly, sdp.AttrKeyRecvOnly, sdp.AttrKeyInactive:
			return a.Key
		}
	}
	return ""
}
