package rtctest

import (
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

const (
	disorder     = 10 * time.Millisecond // by that much a packet may come after those behind it
	answerAfter  = 100 * time.Millisecond
	answerWithin = time.Second // at most
	mostAsks     = 10          // for one packet
	mostMissing  = 512         // numbers back from the newest
)

// asker finds out which packets of an RTP stream are missing and when to ask for them (RFC 4585
// section 6.2.1), as browsers do: soon, and again when the answer is overdue. Pion's generator does
// not see what comes in a repair stream, and asks for that over and over.
type asker struct {
	mu      sync.Mutex
	begun   bool
	newest  uint16
	missing []absent      // in the order of their numbers
	answer  time.Duration // how long answers take; 0: not known
}

// absent is a packet that has not come.
type absent struct {
	number uint16
	since  time.Time // since when that is known
	first  time.Time // when it was first asked for
	last   time.Time // and last
	asks   int
}

// arrived takes the number of a packet that has come, in whichever stream.
func (a *asker) arrived(number uint16, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	step := int16(number - a.newest)
	switch {
	case !a.begun || step > mostMissing || step < -mostMissing:
		a.begun, a.newest, a.missing = true, number, nil
	case step > 0:
		for a.newest++; a.newest != number; a.newest++ {
			a.missing = append(a.missing, absent{number: a.newest, since: now})
		}
		for len(a.missing) > 0 && number-a.missing[0].number > mostMissing {
			a.missing = a.missing[1:]
		}
	default:
		for i, m := range a.missing {
			if m.number != number {
				continue
			}
			if m.asks > 0 {
				a.answered(now.Sub(m.first))
			}
			a.missing = append(a.missing[:i], a.missing[i+1:]...)
			return
		}
	}
}

// answered learns how long an answer took.
func (a *asker) answered(took time.Duration) {
	if a.answer == 0 {
		a.answer = took
	}
	a.answer += (took - a.answer) / 8
}

// due returns the numbers to ask for now.
func (a *asker) due(now time.Time) (numbers []uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	again := min(max(a.answer*3/2, answerAfter), answerWithin)
	for i := range a.missing {
		m := &a.missing[i]
		if now.Sub(m.since) < disorder || m.asks == mostAsks || m.asks > 0 && now.Sub(m.last) < again {
			continue
		}
		if m.asks == 0 {
			m.first = now
		}
		m.last = now
		m.asks++
		numbers = append(numbers, m.number)
	}
	return numbers
}

// ask asks the server for what is due of a stream.
func (e *Endpoint) ask(a *asker, ssrc uint32, now time.Time) {
	numbers := a.due(now)
	if len(numbers) == 0 {
		return
	}
	// A connection that is closed already is not asked.
	_ = e.pc.WriteRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
		MediaSSRC: ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(numbers),
	}})
}

// repeats reports whether the packets of a track may be asked for again.
func repeats(remote *webrtc.TrackRemote) bool {
	for _, f := range remote.Codec().RTCPFeedback {
		if f.Type == "nack" && f.Parameter == "" {
			return true
		}
	}
	return false
}
