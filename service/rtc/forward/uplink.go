package forward

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/codec"
)

// Limits of one session's inbound streams.
const (
	maxSections = 256
	maxStreams  = 32  // SSRCs received at a time
	maxPending  = 4   // SSRCs at a time that belong to no declared section, yet
	maxSSRCs    = 256 // undeclared SSRCs, and senders of RTCP, in the life of a session
	quietTime   = 5 * time.Second
)

// Uplink is a media section that the endpoint may send on, from its applied description.
type Uplink struct {
	MID    string
	Audio  bool
	SSRCs  []uint32 // of a=ssrc lines
	RIDs   []string // in the order of the description
	Codecs []Codec

	Ext Extensions

	// Repairs are the SSRCs of streams by those of the streams that repair them (RFC 4588).
	Repairs map[uint32]uint32

	// REMB says that the endpoint takes it for a video section.
	REMB bool

	// NACK says that an audio section agreed on generic NACK; videos always do.
	NACK bool
}

// Codec is a payload type of a section.
type Codec struct {
	PayloadType uint8 // 0 to 127
	Mime        string
	Fmtp        string // parameters, as in the description
	ClockRate   uint32 // Hz; 0 makes the payload type unknown
	Repairs     uint8  // payload type that this one of a repair stream (RFC 4588) is for; else 0
}

// Stream is one SSRC of an uplink.
type Stream struct {
	MID         string
	RID         string // "" while packets have not told
	SSRC        uint32
	PayloadType uint8
	Mime        string
	Fmtp        string
}

// section is a declared uplink.
type section struct {
	Uplink
	formats [128]format     // by payload type
	passed  [numKinds]uint8 // ids of the extensions that are passed on
	pub     *Publication    // that it feeds; may be nil
}

// format is what a payload type means. Without a clock rate it means nothing.
type format struct {
	clockRate uint32
	codec     codec.Codec
	repairs   uint8 // payload type of the packets it repairs; 0: none
	redundant bool  // RED (RFC 2198)
}

// stream is the state of one SSRC that belongs to a section.
type stream struct {
	reception
	ssrc    uint32
	section *section
	rid     string  // "" while packets have not told
	pt      uint8   // of the last packet
	level   uint8   // of the last packet (RFC 6464)
	repair  bool    // it repairs another one
	losses  *losses // nil until the stream feeds something that is asked for again
}

// inbound is what a Peer receives with. It is guarded by the peer's mu.
type inbound struct {
	srtp     *srtp.Context // nil before Attach and after Close
	tag      int           // bytes at the end of a packet
	sections []*section
	bound    map[string]*Publication // by MID, also of sections that are not declared
	arrivals *arrivals               // nil until a packet carries a transport-wide number

	// Streams, their SSRCs apart so that finding one reads one cache line.
	ssrcs   [maxStreams]uint32
	streams [maxStreams]*stream
	n       int

	pending [maxPending]pendingSSRC
	seen    map[uint32]struct{} // undeclared SSRCs that sent an authentic packet
	senders map[uint32]struct{} // SSRCs that sent authentic RTCP

	bits, packets, reports bucket
	budget                 *Budget // may be nil

	sampled sampledUplink

	// What to add to the NTP time in the endpoint's sender reports to get ours. One for all its
	// streams, so that they stay in step with each other.
	clockOffset int64
	clockKnown  bool
}

type pendingSSRC struct {
	ssrc uint32
	at   time.Duration // of its last packet
	used bool
}

// setUplinks replaces the declared sections. What is already received of those that stay goes on.
func (in *inbound) setUplinks(uplinks []Uplink) {
	uplinks = uplinks[:min(len(uplinks), maxSections)]
	sections := make([]*section, 0, len(uplinks))
	for _, up := range uplinks {
		s := in.section(up.MID)
		if s == nil {
			s = &section{pub: in.bound[up.MID]}
		}
		up.SSRCs, up.RIDs, up.Codecs = slices.Clone(up.SSRCs), slices.Clone(up.RIDs), slices.Clone(up.Codecs)
		up.Repairs = maps.Clone(up.Repairs)
		s.Uplink, s.passed, s.formats = up, up.Ext.passed(), [128]format{}
		for _, c := range up.Codecs {
			if int(c.PayloadType) < len(s.formats) && int(c.Repairs) < len(s.formats) {
				s.formats[c.PayloadType] = format{
					clockRate: c.ClockRate, codec: codec.Of(c.Mime), repairs: c.Repairs,
					redundant: strings.EqualFold(c.Mime, "audio/red"),
				}
			}
		}
		sections = append(sections, s)
	}
	in.sections = sections
	in.pending = [maxPending]pendingSSRC{}
	for i := in.n - 1; i >= 0; i-- {
		of := in.streams[i].section
		declared := in.bySSRC(in.ssrcs[i])
		if declared != nil && declared != of || !slices.Contains(sections, of) {
			in.remove(i)
		}
	}
}

func (in *inbound) section(mid string) *section {
	for _, s := range in.sections {
		if s.MID == mid {
			return s
		}
	}
	return nil
}

// bind makes the section with that MID, declared or to be declared, feed pub.
func (in *inbound) bind(mid string, pub *Publication) {
	if in.bound == nil {
		in.bound = make(map[string]*Publication)
	}
	in.bound[mid] = pub
	if s := in.section(mid); s != nil {
		s.pub = pub
	}
}

// unbind ends that, if the section still feeds pub.
func (in *inbound) unbind(pub *Publication) {
	if in.bound[pub.mid] != pub {
		return
	}
	delete(in.bound, pub.mid)
	if s := in.section(pub.mid); s != nil {
		s.pub = nil
	}
}

// find returns the stream of ssrc, nil if there is none.
func (in *inbound) find(ssrc uint32) *stream {
	for i, have := range in.ssrcs[:in.n] {
		if have == ssrc {
			return in.streams[i]
		}
	}
	return nil
}

// remove removes stream i.
func (in *inbound) remove(i int) {
	in.n--
	in.ssrcs[i], in.streams[i] = in.ssrcs[in.n], in.streams[in.n]
	in.streams[in.n] = nil
}

// declares reports whether a section has the SSRC.
func (in *inbound) declares(ssrc uint32) bool {
	return in.bySSRC(ssrc) != nil
}

// admits reports whether a packet of an SSRC without a stream is worth verifying. Each authentic
// SSRC costs memory until the session ends, so their number is bounded.
func (in *inbound) admits(ssrc uint32, now time.Duration) bool {
	if in.declares(ssrc) {
		return true
	}
	if _, ok := in.seen[ssrc]; !ok && len(in.seen) >= maxSSRCs {
		return false
	}
	return in.pendingSlot(ssrc, now) != nil
}

// pendingSlot returns the place for an SSRC of no section, nil if there is none.
func (in *inbound) pendingSlot(ssrc uint32, now time.Duration) *pendingSSRC {
	var free *pendingSSRC
	for i := range in.pending {
		p := &in.pending[i]
		if p.used && p.ssrc == ssrc {
			return p
		}
		if !p.used || now-p.at >= quietTime {
			free = p
		}
	}
	return free
}

// admit makes a stream for the SSRC of an authentic packet b, if a section it belongs to is
// found: by its SSRC, else by the MID it carries, else because only one section has such a
// payload type (RFC 8843 section 9.2).
func (in *inbound) admit(h *header, b []byte, now time.Duration) *stream {
	var s *section
	if s = in.bySSRC(h.ssrc); s == nil {
		if in.seen == nil {
			in.seen = make(map[uint32]struct{})
		}
		in.seen[h.ssrc] = struct{}{}
		s = in.byMID(h, b)
	}
	if s == nil || !in.makeRoom(now) {
		if p := in.pendingSlot(h.ssrc, now); p != nil {
			*p = pendingSSRC{ssrc: h.ssrc, at: now, used: true}
		}
		return nil
	}
	st := &stream{ssrc: h.ssrc, section: s, pt: h.pt, level: 127, repair: s.formats[h.pt].repairs != 0}
	if len(s.RIDs) == 1 {
		st.rid = s.RIDs[0]
	}
	in.ssrcs[in.n], in.streams[in.n] = h.ssrc, st
	in.n++
	return st
}

// bySSRC returns the section that declares the SSRC, nil if there is none.
func (in *inbound) bySSRC(ssrc uint32) *section {
	for _, s := range in.sections {
		if slices.Contains(s.SSRCs, ssrc) {
			return s
		}
	}
	return nil
}

// byMID returns the section whose MID the packet carries. If it carries none, it is the only
// section with the packet's payload type.
func (in *inbound) byMID(h *header, b []byte) *section {
	var only *section
	fits := 0
	for _, s := range in.sections {
		if mid := h.element(b, s.Ext.MID); mid != nil {
			return in.section(string(mid))
		}
		if s.formats[h.pt].clockRate != 0 {
			only = s
			fits++
		}
	}
	if fits != 1 {
		return nil
	}
	return only
}

// makeRoom reports whether there is room for another stream, after removing one that has been
// quiet for long if need be.
func (in *inbound) makeRoom(now time.Duration) bool {
	if in.n < maxStreams {
		return true
	}
	oldest := 0
	for i, st := range in.streams[:in.n] {
		if st.arrived < in.streams[oldest].arrived {
			oldest = i
		}
	}
	if now-in.streams[oldest].arrived < quietTime {
		return false
	}
	in.remove(oldest)
	return true
}

// admitsReport reports whether RTCP of that sender is worth verifying.
func (in *inbound) admitsReport(sender uint32) bool {
	_, ok := in.senders[sender]
	return ok || len(in.senders) < maxSSRCs
}

// admitReport notes the sender of an authentic RTCP packet.
func (in *inbound) admitReport(sender uint32) {
	if in.senders == nil {
		in.senders = make(map[uint32]struct{})
	}
	in.senders[sender] = struct{}{}
}

// describe returns what OnStream is told of st.
func (st *stream) describe(h *header) Stream {
	d := Stream{
		MID:         st.section.MID,
		RID:         st.rid,
		SSRC:        st.ssrc,
		PayloadType: h.pt,
	}
	for _, c := range st.section.Codecs {
		if c.PayloadType == h.pt {
			d.Mime, d.Fmtp = c.Mime, c.Fmtp
		}
	}
	return d
}
