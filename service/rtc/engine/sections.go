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
	maxSSRCs = 16
	maxRIDs  = 4
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
	remote, local := p.CurrentRemoteDescription(), p.CurrentLocalDescription()
	if remote == nil || local == nil {
		return nil
	}
	// Not their Unmarshal, which writes to what pion's goroutines read.
	var theirs, ours sdp.SessionDescription
	if theirs.UnmarshalString(remote.SDP) != nil || ours.UnmarshalString(local.SDP) != nil {
		return nil
	}
	byMID := make(map[string]*sdp.MediaDescription, len(ours.MediaDescriptions))
	for _, m := range ours.MediaDescriptions {
		if mid, ok := m.Attribute(sdp.AttrKeyMID); ok {
			byMID[mid] = m
		}
	}
	var out []Section
	for _, m := range theirs.MediaDescriptions {
		mid, _ := m.Attribute(sdp.AttrKeyMID)
		our := byMID[mid]
		if our == nil || !sends(m) || !receives(our) {
			continue
		}
		switch m.MediaName.Media {
		case "audio", "video":
			out = append(out, section(mid, m, our))
		}
	}
	return out
}

// section combines what the endpoint sends with what we said it may use.
func section(mid string, theirs, ours *sdp.MediaDescription) Section {
	s := Section{Uplink: forward.Uplink{MID: mid, Audio: theirs.MediaName.Media == "audio"}}
	for _, a := range theirs.Attributes {
		switch a.Key {
		case "msid":
			stream, track, _ := strings.Cut(a.Value, " ")
			if s.StreamID == "" {
				s.StreamID, s.TrackID = stream, track
			}
		case "ssrc":
			id, _, _ := strings.Cut(a.Value, " ")
			if n, err := strconv.ParseUint(id, 10, 32); err == nil &&
				len(s.SSRCs) < maxSSRCs && !slices.Contains(s.SSRCs, uint32(n)) {
				s.SSRCs = append(s.SSRCs, uint32(n))
			}
		case "rid":
			if id, rest, _ := strings.Cut(a.Value, " "); strings.HasPrefix(rest, "send") && len(s.RIDs) < maxRIDs {
				s.RIDs = append(s.RIDs, id)
			}
		}
	}
	for _, a := range ours.Attributes {
		switch a.Key {
		case "rtpmap":
			if c, ok := codec(a.Value); ok {
				c.Mime = theirs.MediaName.Media + "/" + c.Mime
				s.Codecs = append(s.Codecs, c)
			}
		case "extmap":
			s.extension(a.Value)
		}
	}
	return s
}

// codec parses the value of an rtpmap attribute (RFC 8866 section 6.6).
func codec(value string) (forward.Codec, bool) {
	pt, rest, _ := strings.Cut(value, " ")
	name, rest, _ := strings.Cut(rest, "/")
	rate, _, _ := strings.Cut(rest, "/")
	n, errN := strconv.ParseUint(pt, 10, 7)
	r, errR := strconv.ParseUint(rate, 10, 32)
	return forward.Codec{PayloadType: uint8(n), Mime: name, ClockRate: uint32(r)}, errN == nil && errR == nil
}

// extension notes the id of an extmap attribute (RFC 8285 section 5) if it is one we know.
func (s *Section) extension(value string) {
	id, rest, _ := strings.Cut(value, " ")
	id, _, _ = strings.Cut(id, "/") // direction
	uri, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(id, 10, 8)
	if err != nil || n < 1 || n > 14 {
		return
	}
	switch uri {
	case ExtMID:
		s.Ext.MID = uint8(n)
	case ExtRID:
		s.Ext.RID = uint8(n)
	case ExtAudioLevel:
		s.Ext.AudioLevel = uint8(n)
	case ExtTWCC:
		s.Ext.TWCC = uint8(n)
	}
}

func sends(m *sdp.MediaDescription) bool    { return directed(m, sdp.AttrKeySendOnly) }
func receives(m *sdp.MediaDescription) bool { return directed(m, sdp.AttrKeyRecvOnly) }

// directed reports whether a section is not rejected and is sendrecv, which is also what it is if
// it does not say, or has the one direction.
func directed(m *sdp.MediaDescription, direction string) bool {
	if m.MediaName.Port.Value == 0 {
		return false
	}
	for _, a := range m.Attributes {
		switch a.Key {
		case sdp.AttrKeySendRecv:
			return true
		case sdp.AttrKeySendOnly, sdp.AttrKeyRecvOnly, sdp.AttrKeyInactive:
			return a.Key == direction
		}
	}
	return true
}
