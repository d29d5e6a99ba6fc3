package rtc

import (
	"net/netip"
	"sync"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc/netio"
)

// A callRecord is what is kept of the sessions that have left a call.
type callRecord struct {
	started time.Time

	mu   sync.Mutex
	past report.Past
}

// history is what is measured of the server.
type history struct {
	mu  sync.Mutex
	log report.ServerLog
}

func (h *history) add(s report.Server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.Add(s)
}

func (h *history) since(t time.Time) []report.Server {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Since(t.Unix())
}

// Record returns what is known so far of a call, and whether there is such a call.
func (s *Server) Record(groupID, callID string) (*report.Record, bool) {
	c := s.call(groupID, callID)
	if c == nil || s.cfg.CallRecord == nil {
		return nil, false
	}
	return s.record(c), true
}

// record puts together what is known of a call.
func (s *Server) record(c *call) *report.Record {
	out := &report.Record{ID: c.id, Started: c.record.started.UnixMilli(), Servers: s.history.since(c.record.started)}
	c.mu.Lock()
	members := make([]*session, 0, len(c.members))
	for ses := range c.members {
		members = append(members, ses)
	}
	c.mu.Unlock()
	for _, ses := range members {
		if r, ok := ses.recorded(false); ok {
			out.Sessions = append(out.Sessions, r)
		}
	}
	c.record.mu.Lock()
	past, omitted := c.record.past.Sessions()
	c.record.mu.Unlock()
	out.Sessions, out.Omitted = append(past, out.Sessions...), omitted
	return out
}

// finished hands over what is known of a call that is over.
func (s *Server) finished(c *call) {
	if s.cfg.CallRecord == nil {
		return
	}
	r := s.record(c)
	r.Ended = time.Now().UnixMilli()
	s.cfg.CallRecord(c.group, r)
}

// recorded returns what is known of the session; last: and records no more.
func (s *session) recorded(last bool) (report.Recorded, bool) {
	q := &s.quality
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.recorder == nil {
		return report.Recorded{}, false
	}
	r := report.Recorded{
		ID: s.info.SessionID, User: s.info.UserID, Network: q.network, Joined: s.joined.UnixMilli(),
		Recorder: q.recorder,
	}
	if last {
		q.recorder = nil
	} else {
		r.Recorder = q.recorder.Clone()
	}
	return r, true
}

// left keeps what is known of a session that leaves the call.
func (c *call) left(s *session, reason CloseReason) {
	r, ok := s.recorded(true)
	if !ok {
		return
	}
	r.Left, r.Reason = time.Now().UnixMilli(), string(reason)
	r.Recorder.Event(report.Event{Unix: r.Left, Kind: report.Left, Detail: string(reason)})
	c.record.mu.Lock()
	defer c.record.mu.Unlock()
	c.record.past.Add(r)
}

// recordedEvents are the events of calls that are recorded, as what they are.
var recordedEvents = map[CallEventType]report.EventKind{
	ParticipantJoined: report.Joined, ParticipantConnected: report.ConnectedFirst,
	ParticipantDisconnected: report.Disconnected, ParticipantReconnected: report.Reconnected,
	ParticipantMoved: report.Moved, StreamStarted: report.StreamStarted, StreamEnded: report.StreamEnded,
	Moderated: report.Moderated,
}

// note records an event of the session. It may be called with locks held.
func (q *quality) note(ev CallEvent) {
	kind, ok := recordedEvents[ev.Type]
	if !ok {
		return
	}
	detail := ev.Detail
	switch ev.Type {
	case ParticipantConnected, ParticipantMoved:
		detail = q.from() // and no address, unless that is wanted
	case StreamStarted:
		detail = ev.Codec
	}
	q.record(report.Event{Kind: kind, Stream: ev.Source, Detail: detail})
}

// record records that something takes place now. It may be called with locks held.
func (q *quality) record(e report.Event) {
	e.Unix = time.Now().UnixMilli()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.recorder != nil {
		q.recorder.Event(e)
	}
}

// from returns where the media comes from.
func (q *quality) from() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.network
}

// on notes the path that the media takes.
func (q *quality) on(path netio.Path, whole bool) {
	q.tcp.Store(path.TCP())
	network := networkOf(path, whole)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.network = network
}

// networkOf returns where a path comes from: the network of the address, or all of it.
func networkOf(path netio.Path, whole bool) string {
	protocol := "udp "
	if path.TCP() {
		protocol = "tcp "
	}
	remote := path.Remote()
	if whole {
		return protocol + remote.String()
	}
	bits := 24
	if remote.Addr().Is6() {
		bits = 48
	}
	prefix, err := remote.Addr().Prefix(bits)
	if err != nil {
		return protocol
	}
	return protocol + netip.PrefixFrom(prefix.Addr(), bits).String()
}
