package rtc

import (
	"sync"
	"time"

	"rtcd/service/metrics"
)

// CallEventType says what took place in a call.
type CallEventType string

// The types. Of a call CallStarted is first and CallEnded last; of a session ParticipantJoined is first
// and ParticipantLeft last, and the streams that it still publishes end before it.
const (
	CallStarted             CallEventType = "call.started"
	CallEnded               CallEventType = "call.ended"
	ParticipantJoined       CallEventType = "participant.joined"
	ParticipantConnected    CallEventType = "participant.connected"    // ICE and DTLS, for the first time
	ParticipantDisconnected CallEventType = "participant.disconnected" // no packets for some seconds
	ParticipantReconnected  CallEventType = "participant.reconnected"
	ParticipantMoved        CallEventType = "participant.moved" // its media comes from elsewhere
	ParticipantLeft         CallEventType = "participant.left"  // for Detail, a CloseReason
	StreamStarted           CallEventType = "stream.started"
	StreamEnded             CallEventType = "stream.ended"
	Moderated               CallEventType = "moderated" // Detail is the action
)

// A CallEvent is something that took place in a call.
type CallEvent struct {
	Type    CallEventType
	Time    time.Time
	GroupID string
	CallID  string
	// Of the participant, unless the event is of the call alone.
	SessionID string
	UserID    string
	// Of the stream: as in CallInfo.
	StreamID string
	Source   string
	Codec    string
	Detail   string
}

// LimitCallEvents is hit when those who take the events of calls are too slow for all of them.
const LimitCallEvents metrics.Limit = "call_events"

// maxCallEvents is how many events may wait to be told.
const maxCallEvents = 65_536

// callEvents tells of what takes place in calls, in the order in which it took place.
type callEvents struct {
	tell func(CallEvent)
	lost func()
	wake chan struct{} // one slot

	mu    sync.Mutex
	queue []CallEvent
	asked []chan struct{} // to be closed when the queue has been told
	ended bool            // nothing is told any more
}

func newCallEvents(tell func(CallEvent), lost func()) *callEvents {
	return &callEvents{tell: tell, lost: lost, wake: make(chan struct{}, 1)}
}

// note makes an event be told. It is called with the locks held that order the event among the others.
func (e *callEvents) note(ev CallEvent) {
	if e.tell == nil {
		return
	}
	e.mu.Lock()
	full := len(e.queue) >= maxCallEvents
	if !full {
		e.queue = append(e.queue, ev)
	}
	e.mu.Unlock()
	if full {
		e.lost()
		return
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run tells until stop is closed, and then what is left to be told.
func (e *callEvents) run(stop <-chan struct{}) {
	for {
		select {
		case <-e.wake:
			e.flush()
		case <-stop:
			e.mu.Lock()
			e.ended = true
			e.mu.Unlock()
			e.flush()
			return
		}
	}
}

func (e *callEvents) flush() {
	e.mu.Lock()
	queue, asked := e.queue, e.asked
	e.queue, e.asked = nil, nil
	e.mu.Unlock()
	for _, ev := range queue {
		e.tell(ev)
	}
	for _, told := range asked {
		close(told)
	}
}

// await returns when all that was noted before has been told, or nothing is told any more.
func (e *callEvents) await() {
	told := make(chan struct{})
	e.mu.Lock()
	if e.tell == nil || e.ended {
		e.mu.Unlock()
		return
	}
	e.asked = append(e.asked, told)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
	<-told
}

// FlushCallEvents returns when Config.CallEvent has been told of all that took place before. It must not
// be called from within that.
func (s *Server) FlushCallEvents() { s.events.await() }

// note tells of an event of the call. It may be called with locks held.
func (c *call) note(ev CallEvent) {
	ev.GroupID, ev.CallID, ev.Time = c.group, c.id, time.Now()
	c.events.note(ev)
}

// noteOfLocked tells of an event of a member, unless it is none any more.
func (c *call) noteOfLocked(s *session, ev CallEvent) {
	if _, member := c.members[s]; !member {
		return
	}
	ev.SessionID, ev.UserID = s.info.SessionID, s.info.UserID
	s.quality.note(ev)
	c.note(ev)
}

// note tells of an event of the session, unless it has ended.
func (s *session) note(t CallEventType, detail string) {
	s.call.mu.Lock()
	defer s.call.mu.Unlock()
	s.call.noteOfLocked(s, CallEvent{Type: t, Detail: detail})
}

// event is one of a publication.
func (p *publication) event(t CallEventType) CallEvent {
	return CallEvent{Type: t, StreamID: p.trackID, Source: p.source.String(), Codec: p.codec.mime}
}
