package rtc

import (
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc/forward"
)

// samplePeriod is the time between two samples of all sessions.
const samplePeriod = time.Second

// quality is what is measured of a session.
type quality struct {
	media     atomic.Pointer[forward.Peer] // nil before the first offer
	connected atomic.Bool
	tcp       atomic.Bool

	// The sampler's alone.
	trip    uint32 // ms
	tripAge int    // samples since it was told

	mu   sync.Mutex
	last report.Sample // zero before the first
}

// tripTold is for how many samples a round-trip time counts: browsers tell of sounds every 5 s or so.
const tripTold = 10

// roundTrip returns what is known of the round trip, in ms, if told is what is new of it.
func (q *quality) roundTrip(told time.Duration) uint32 {
	if q.tripAge++; told > 0 {
		q.trip, q.tripAge = uint32((told+time.Millisecond-1)/time.Millisecond), 0
	}
	if q.tripAge > tripTold {
		return 0
	}
	return q.trip
}

// LastSample returns the last second of a session, and false if there is no such session or it has not
// been measured yet.
func (s *Server) LastSample(groupID, sessionID string) (report.Sample, bool) {
	ses := s.find(groupID, sessionID)
	if ses == nil {
		return report.Sample{}, false
	}
	ses.quality.mu.Lock()
	defer ses.quality.mu.Unlock()
	return ses.quality.last, ses.quality.last.Unix != 0
}

// sampler measures all sessions once a second, on one goroutine.
type sampler struct {
	server   *Server
	sessions []*session
	samples  []report.Sample
}

func (s *Server) sampleAll() {
	t := time.NewTicker(samplePeriod)
	defer t.Stop()
	m := &sampler{server: s}
	for {
		select {
		case now := <-t.C:
			m.measure(now)
		case <-s.stop:
			return
		}
	}
}

// measure takes the samples of a second.
func (m *sampler) measure(now time.Time) {
	m.sessions, m.samples = m.sessions[:0], m.samples[:0]
	m.server.mu.Lock()
	for _, ses := range m.server.sessions {
		m.sessions = append(m.sessions, ses)
	}
	m.server.mu.Unlock()
	for _, ses := range m.sessions {
		sample := report.Sample{Unix: now.Unix()}
		if media := ses.quality.media.Load(); media != nil {
			media.SampleUp(&sample)
		}
		m.samples = append(m.samples, sample)
	}
	for i, ses := range m.sessions {
		sample := &m.samples[i]
		if media := ses.quality.media.Load(); media != nil {
			trip := media.SampleDown(&sample.Down)
			sample.RoundTrip = ses.quality.roundTrip(trip)
		}
		ses.measured(sample)
	}
	clear(m.sessions)
}

// measured completes and keeps a sample.
func (s *session) measured(sample *report.Sample) {
	q := &s.quality
	if q.connected.Load() {
		sample.State |= report.Connected
	}
	if q.tcp.Load() {
		sample.State |= report.OverTCP
	}
	if sample.Down.Packets > 0 {
		sample.State |= report.Receives
	}
	q.mu.Lock()
	q.last = *sample
	q.mu.Unlock()
}
