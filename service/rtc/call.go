package rtc

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
)

// A call is one conference: who is in it, what they publish, who shares the screen.
//
// It has no loop of its own. What is published is a list that is copied on write; whoever changes
// it nudges the members, and each member brings its own subscriptions in line with the list as it
// then is. So changes that come together are seen together, and none can be missed or reordered.
type call struct {
	group, id string
	screens   int            // that may be shared at a time; negative: any number
	floor     *forward.Floor // nil: all voices are forwarded

	// Fixed by the first that asks; all sessions of the call share it.
	certOnce sync.Once
	cert     webrtc.Certificate
	certErr  error

	publications atomic.Pointer[[]*publication]

	// Tells that there is something new to tell of the call. It may be called with locks held.
	touch  func()
	events *callEvents

	lifetime lifetime // guarded by the server's mu
	record   callRecord
	gone     chan struct{} // closed when the call is out of all tables

	mu         sync.Mutex
	members    map[*session]struct{}
	sharers    map[*session]string // whose screens are shared, by the ids of their streams
	moderation moderation
}

// A publication is one source of one session, as the others see it.
type publication struct {
	trackID string
	source  forward.Source
	codec   codecName
	owner   *session
	mid     string
	stream  string // id of the endpoint's stream
	media   *forward.Publication

	withdrawn atomic.Bool // a moderator took it away
}

func newCall(group, id string, screens, voices int, touch func(), events *callEvents) *call {
	c := &call{
		group: group, id: id, screens: screens, touch: touch, events: events, gone: make(chan struct{}),
		members: make(map[*session]struct{}), sharers: make(map[*session]string),
	}
	if voices > 0 {
		c.floor = forward.NewFloor(voices)
	}
	c.record.started = time.Now()
	c.publications.Store(new([]*publication))
	return c
}

// certificate is the DTLS certificate of the call.
func (c *call) certificate() (webrtc.Certificate, error) {
	c.certOnce.Do(func() { c.cert, c.certErr = engine.NewCertificate() })
	return c.cert, c.certErr
}

// enter makes s a member. It begins muted in a call that is.
func (c *call) enter(s *session) {
	c.mu.Lock()
	c.members[s] = struct{}{}
	s.silenced.Store(c.moderation.holds(s))
	c.noteOfLocked(s, CallEvent{Type: ParticipantJoined, Detail: string(s.grant.Role)})
	c.mu.Unlock()
	c.touch()
}

// leave ends the membership of s and everything it published.
func (c *call) leave(s *session, reason CloseReason) {
	c.mu.Lock()
	gone := c.removeLocked(func(p *publication) bool { return p.owner == s })
	c.noteOfLocked(s, CallEvent{Type: ParticipantLeft, Detail: string(reason)})
	delete(c.members, s)
	delete(c.sharers, s)
	c.moderation.allow(s, func(withdrawal) bool { return true })
	c.mu.Unlock()
	c.left(s, reason)
	c.removed(gone)
	c.touch()
}

// publish adds p if its owner is a member, moderators let it and, for what belongs to a screen share,
// it still shares that stream, and tells the others.
func (c *call) publish(p *publication) bool {
	c.mu.Lock()
	_, member := c.members[p.owner]
	ofShare := p.source == forward.Screen || p.source == forward.ScreenAudio
	if !member || !c.allowedLocked(p.owner, p.mid, p.stream, p.source) || ofShare && !c.sharesLocked(p.owner, p.stream) {
		c.mu.Unlock()
		return false
	}
	old := *c.publications.Load()
	list := append(old[:len(old):len(old)], p)
	c.publications.Store(&list)
	c.noteOfLocked(p.owner, p.event(StreamStarted))
	c.mu.Unlock()
	c.nudge()
	return true
}

// unpublish ends those publications of s for which gone says so.
func (c *call) unpublish(s *session, gone func(*publication) bool) {
	c.mu.Lock()
	out := c.removeLocked(func(p *publication) bool { return p.owner == s && gone(p) })
	c.mu.Unlock()
	c.removed(out)
}

func (c *call) removeLocked(gone func(*publication) bool) []*publication {
	var keep, out []*publication
	for _, p := range *c.publications.Load() {
		if gone(p) {
			out = append(out, p)
			c.noteOfLocked(p.owner, p.event(StreamEnded))
		} else {
			keep = append(keep, p)
		}
	}
	if out != nil {
		c.publications.Store(&keep)
	}
	return out
}

// removed closes publications that are no longer listed, and tells the members.
func (c *call) removed(gone []*publication) {
	for _, p := range gone {
		p.media.Close()
		p.owner.trackEnded(p)
	}
	if gone != nil {
		c.nudge()
	}
}

// nudge makes all members look at the publications.
func (c *call) nudge() {
	c.touch()
	c.mu.Lock()
	members := make([]*session, 0, len(c.members))
	for s := range c.members {
		members = append(members, s)
	}
	c.mu.Unlock()
	for _, s := range members {
		s.publicationsChanged()
	}
}

// shareScreen makes s a sharer if there is room for one and moderators let it. Else it changes nothing,
// then or later.
func (c *call) shareScreen(s *session, stream string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, member := c.members[s]
	_, sharer := c.sharers[s]
	if member && !c.moderation.blocks(s, forward.Screen) && (sharer || c.screens < 0 || len(c.sharers) < c.screens) {
		c.sharers[s] = stream
		c.moderation.allow(s, func(w withdrawal) bool { return w.stream == stream })
	}
}

// stopScreen ends the share of s and what belongs to it.
func (c *call) stopScreen(s *session) {
	c.mu.Lock()
	if _, ok := c.sharers[s]; !ok {
		c.mu.Unlock()
		return
	}
	delete(c.sharers, s)
	c.mu.Unlock()
	c.unpublish(s, func(p *publication) bool {
		return p.source == forward.Screen || p.source == forward.ScreenAudio
	})
}

// shares reports whether the stream is the screen that s shares with the call.
func (c *call) shares(s *session, stream string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sharesLocked(s, stream)
}

func (c *call) sharesLocked(s *session, stream string) bool {
	shared, ok := c.sharers[s]
	return ok && stream != "" && shared == stream
}
