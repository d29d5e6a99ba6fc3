package rtc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/netio"
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

	mu       sync.Mutex
	last     report.Sample    // zero before the first
	recorder *report.Recorder // nil if nothing is recorded, and after the end
	network  string           // that its media comes from
	reduced  int              // samples in a row in which its videos are, or are not, the best; below 0: are
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
	drops    uint64 // of the sockets, at the last sample
}

func (s *Server) sampleAll() {
	t := time.NewTicker(samplePeriod)
	defer t.Stop()
	m := &sampler{server: s, drops: sendDrops(s.mux.Stats())}
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

	drops := sendDrops(m.server.mux.Stats())
	m.server.history.add(report.Server{
		Unix: now.Unix(), Late: uint32(m.server.late.Swap(0) / int64(time.Millisecond)),
		Transit: uint32(m.server.plane.Slowest() / time.Millisecond), SendDrops: uint32(drops - m.drops),
	})
	m.drops = drops
}

// sendDrops returns how many packets the sockets did not take, for reasons that lie on this host.
func sendDrops(s netio.Stats) uint64 {
	return s.Drops[netio.DropSendBuffer] + s.Drops[netio.DropSendError] + s.Drops[netio.DropForbidden]
}

// lateness notes how late the work of a tick is that was due at due, and the one before at last.
func (s *Server) lateness(due, last time.Time) {
	late := time.Since(due)
	if !last.IsZero() {
		late = max(late, due.Sub(last)-forward.TickInterval)
	}
	if int64(late) > s.late.Load() {
		s.late.Store(int64(late))
	}
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
	defer q.mu.Unlock()
	if q.recorder != nil {
		q.recorder.Add(sample)
		q.changesLocked(sample)
	}
	q.last = *sample
}

// reducedFor is for how many seconds videos must be sent in less than the best, or in the best again,
// until that is an event.
const reducedFor = 3

// changesLocked records what has changed since the last sample.
func (q *quality) changesLocked(s *report.Sample) {
	event := func(k report.EventKind, detail string) {
		q.recorder.Event(report.Event{Unix: s.Unix * 1000, Kind: k, Detail: detail})
	}
	if voice := report.HasVoice; s.State&q.last.State&voice != 0 && (s.State^q.last.State)&report.Muted != 0 {
		if s.State&report.Muted != 0 {
			event(report.MutedVoice, "")
		} else {
			event(report.UnmutedVoice, "")
		}
	}
	if s.Down.KeyAsked > 0 && q.last.Down.KeyAsked == 0 {
		event(report.KeyframesAsked, fmt.Sprint(s.Down.KeyAsked, " by it"))
	}
	if s.Up.Dropped > 0 && q.last.Up.Dropped == 0 {
		event(report.LimitHit, fmt.Sprint(s.Up.Dropped, " packets refused"))
	}
	if s.Down.Reduced+s.Down.Paused > 0 {
		if q.reduced = max(q.reduced, 0) + 1; q.reduced == reducedFor {
			event(report.Reduced, fmt.Sprintf("%d reduced, %d paused of %d, estimate %d kbit/s",
				s.Down.Reduced, s.Down.Paused, s.Down.Videos, s.Down.Estimate))
		}
	} else if q.reduced > 0 {
		if q.reduced >= reducedFor {
			event(report.Restored, "")
		}
		q.reduced = 0
	}
}
