package forward

import (
	"sync/atomic"
	"time"
)

// Drop is a reason why a packet was not forwarded.
type Drop uint8

// Reasons for dropping packets that came in, and one for those that should have gone out.
const (
	DropUnknownPath Drop = iota // not of an attached endpoint
	DropMalformed               // not RTP or RTCP by its lengths, CSRCs, or longer than 1,500 bytes
	DropUnknownSSRC             // of no declared section, or of too many SSRCs
	DropAuth                    // the tag did not verify
	DropReplay                  // seen before, or too old to tell
	DropRate                    // over the rate of the session
	DropPayloadType             // not among the codecs of the section
	DropPadding                 // more padding than packet
	DropUnbound                 // of a section that feeds no publication
	DropRID                     // of another RID than the publication is fed by
	DropMuted                   // of a muted publication
	DropQuiet                   // of a voice that is not among the loudest
	DropRepaired                // repairs what is not missing, or nothing
	DropLate                    // older than a mute or a change of the source
	DropRole                    // of an endpoint that may not send
	DropClientRate              // over the rate of all sessions of the client
	DropEncrypt                 // not encrypted, a receiver did not get it
	numDrops
)

var dropNames = [numDrops]string{
	"unknown_path", "malformed", "unknown_ssrc", "auth", "replay", "rate",
	"payload_type", "padding", "unbound", "rid", "muted", "quiet", "repaired", "late", "role", "client_rate", "encrypt",
}

// String returns the name of the reason, fit for a metric's label.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return "unknown"
}

// Drops returns all reasons.
func Drops() []Drop {
	all := make([]Drop, numDrops)
	for i := range all {
		all[i] = Drop(i)
	}
	return all
}

// Feedback is a kind of RTCP packet that was received.
type Feedback uint8

// The kinds of RTCP that are told apart.
const (
	FeedbackSR Feedback = iota
	FeedbackRR
	FeedbackBye
	FeedbackPLI
	FeedbackFIR
	FeedbackNACK
	FeedbackREMB
	FeedbackTWCC
	FeedbackOther
	numFeedbacks
)

var feedbackNames = [numFeedbacks]string{"sr", "rr", "bye", "pli", "fir", "nack", "remb", "twcc", "other"}

// String returns the name of the kind, fit for a metric's label.
func (f Feedback) String() string {
	if f < numFeedbacks {
		return feedbackNames[f]
	}
	return "unknown"
}

// Stats are totals since the plane was made.
type Stats struct {
	PacketsIn   uint64 // RTP packets received, authentic or not
	BytesIn     uint64 // of them, with their SRTP tags
	PacketsOut  uint64 // RTP packets handed to a batch, those sent again included
	BytesOut    uint64
	Resent      uint64 // of PacketsOut: those sent again, as the receiver asked for
	Padding     uint64 // of PacketsOut: those that only try what a path can carry
	RTCPIn      uint64 // RTCP packets received, authentic or not
	RTCPOut     uint64 // RTCP packets handed to a batch
	Drops       [numDrops]uint64
	Feedbacks   [numFeedbacks]uint64 // parts of authentic RTCP packets
	Keyframes   uint64               // requests for a keyframe sent
	NACKs       uint64               // requests for missing packets sent
	Uplink      Loss                 // from senders to us, before repairs
	Downlink    Loss                 // from us to receivers, as they report, before repairs
	RateLimited uint64               // of Drops[DropRate]: RTCP packets
	TooMany     uint64               // of Drops[DropUnknownSSRC]: of endpoints that have used too many SSRCs
}

// Loss tells what became of packets on one leg.
type Loss struct {
	Due  uint64 // packets that should have come
	Lost uint64 // of those, that did not
}

func (l *Loss) add(due, lost uint64) {
	l.Due += due
	l.Lost += lost
}

// counts are the counters of one batch, or of one call, before they are added to the plane's.
type counts struct {
	Stats
	dirty bool // has drops, feedback or losses
}

func (c *counts) drop(reason Drop) {
	c.Drops[reason]++
	c.dirty = true
}

// counters are the totals of a plane.
type counters struct {
	packetsIn, bytesIn                               atomic.Uint64
	packetsOut, bytesOut, resent, padding            atomic.Uint64
	rtcpIn, rtcpOut, keyframes, rateLimited          atomic.Uint64
	tooMany, nacks, upDue, upLost, downDue, downLost atomic.Uint64
	drops                                            [numDrops]atomic.Uint64
	feedbacks                                        [numFeedbacks]atomic.Uint64
}

// add adds c and clears it.
func (t *counters) add(c *counts) {
	addNonZero(&t.packetsIn, c.PacketsIn)
	addNonZero(&t.bytesIn, c.BytesIn)
	addNonZero(&t.packetsOut, c.PacketsOut)
	addNonZero(&t.bytesOut, c.BytesOut)
	addNonZero(&t.rtcpIn, c.RTCPIn)
	addNonZero(&t.rtcpOut, c.RTCPOut)
	if c.dirty {
		addNonZero(&t.resent, c.Resent)
		addNonZero(&t.padding, c.Padding)
		addNonZero(&t.keyframes, c.Keyframes)
		addNonZero(&t.rateLimited, c.RateLimited)
		addNonZero(&t.tooMany, c.TooMany)
		addNonZero(&t.nacks, c.NACKs)
		addNonZero(&t.upDue, c.Uplink.Due)
		addNonZero(&t.upLost, c.Uplink.Lost)
		addNonZero(&t.downDue, c.Downlink.Due)
		addNonZero(&t.downLost, c.Downlink.Lost)
		for i, n := range c.Drops {
			addNonZero(&t.drops[i], n)
		}
		for i, n := range c.Feedbacks {
			addNonZero(&t.feedbacks[i], n)
		}
	}
	*c = counts{}
}

func addNonZero(to *atomic.Uint64, n uint64) {
	if n != 0 {
		to.Add(n)
	}
}

func (t *counters) snapshot() Stats {
	s := Stats{
		PacketsIn: t.packetsIn.Load(), BytesIn: t.bytesIn.Load(),
		PacketsOut: t.packetsOut.Load(), BytesOut: t.bytesOut.Load(), Resent: t.resent.Load(), Padding: t.padding.Load(),
		RTCPIn: t.rtcpIn.Load(), RTCPOut: t.rtcpOut.Load(),
		Keyframes: t.keyframes.Load(), RateLimited: t.rateLimited.Load(), TooMany: t.tooMany.Load(), NACKs: t.nacks.Load(),
		Uplink:   Loss{Due: t.upDue.Load(), Lost: t.upLost.Load()},
		Downlink: Loss{Due: t.downDue.Load(), Lost: t.downLost.Load()},
	}
	for i := range s.Drops {
		s.Drops[i] = t.drops[i].Load()
	}
	for i := range s.Feedbacks {
		s.Feedbacks[i] = t.feedbacks[i].Load()
	}
	return s
}

// writeBounds are the upper bounds of a Histogram's buckets.
var writeBounds = [...]time.Duration{
	1 * time.Millisecond, 5 * time.Millisecond, 7500 * time.Microsecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 300 * time.Millisecond, 400 * time.Millisecond, 500 * time.Millisecond,
	750 * time.Millisecond, time.Second,
}

// Histogram counts how long it takes to write one packet to all receivers. The zero Histogram is
// ready for use, by any number of goroutines; several publications may share one.
type Histogram struct {
	buckets [len(writeBounds) + 1]atomic.Uint64 // the last one: longer than all bounds
	nanos   atomic.Int64
}

// observe counts n packets that took took together.
func (h *Histogram) observe(took time.Duration, n int) {
	each := took / time.Duration(n)
	i := 0
	for i < len(writeBounds) && each > writeBounds[i] {
		i++
	}
	h.buckets[i].Add(uint64(n))
	h.nanos.Add(int64(took))
}

// HistogramSnapshot is a Histogram at one moment.
type HistogramSnapshot struct {
	Count   uint64
	Sum     float64            // seconds
	Buckets map[float64]uint64 // cumulative counts by upper bound in seconds, without +Inf
}

// Snapshot returns what was counted so far.
func (h *Histogram) Snapshot() HistogramSnapshot {
	return snapshot(h.buckets[:], writeBounds[:], &h.nanos)
}

func snapshot(buckets []atomic.Uint64, bounds []time.Duration, nanos *atomic.Int64) HistogramSnapshot {
	s := HistogramSnapshot{Buckets: make(map[float64]uint64, len(bounds))}
	for i := range buckets {
		s.Count += buckets[i].Load()
		if i < len(bounds) {
			s.Buckets[bounds[i].Seconds()] = s.Count
		}
	}
	s.Sum = time.Duration(nanos.Load()).Seconds()
	return s
}
