package rtc

import (
	"slices"

	"rtcd/service/metrics"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
)

// LimitBlocks counts blocks that a call had no room for.
const LimitBlocks metrics.Limit = "blocks_per_call"

// maxBlocks bounds what a call remembers to be blocked.
const maxBlocks = 10_000

// Disconnect ends a session of a call. Its transport is closed at once; the others stay as they are.
func (s *Server) Disconnect(groupID, callID, sessionID string) error {
	ses, err := s.member(groupID, callID, sessionID)
	if err != nil {
		return err
	}
	ses.end(CloseRemoved)
	return nil
}

// Unpublish takes a stream, by its id in CallInfo, away from everybody, with what belongs to it: the
// same picture in another codec, the sound of a screen. From now on no packet of it is forwarded. Its
// endpoint may publish it once more by a new section or a new announcement, unless it is blocked until
// the end of the call. A block holds for the session and for all others of its user, also under
// another name: neither a voice nor a camera comes back as what belongs to a screen.
func (s *Server) Unpublish(groupID, callID, streamID string, untilCallEnd bool) error {
	c := s.call(groupID, callID)
	if c == nil {
		return ErrNoCall
	}
	err := c.withdraw(streamID, untilCallEnd)
	if limit, ok := err.(limitError); ok {
		s.cfg.Metrics.LimitHit(limit.limit)
	}
	return err
}

// Mute mutes all that is heard of a session, now and later, until its own endpoint says unmute:
// nobody else can.
func (s *Server) Mute(groupID, callID, sessionID string) error {
	ses, err := s.member(groupID, callID, sessionID)
	if err != nil {
		return err
	}
	ses.call.silence(func(m *session) bool { return m == ses })
	return nil
}

// MuteAll mutes as Mute does all sessions of a call but for those in except. An id of a stream in
// there stands for its session.
func (s *Server) MuteAll(groupID, callID string, except []string) error {
	c := s.call(groupID, callID)
	if c == nil {
		return ErrNoCall
	}
	spared := c.sessionsOf(except)
	c.silence(func(m *session) bool { return !spared[m.info.SessionID] })
	return nil
}

// SetMuteState mutes a call: all that are in it and all that come, but for sessions in except, which
// is as in MuteAll and replaces what was said before. While it is active an endpoint's unmute does not
// count; when it is not any more, each endpoint may say unmute for itself.
func (s *Server) SetMuteState(groupID, callID string, active bool, except []string) error {
	c := s.call(groupID, callID)
	if c == nil {
		return ErrNoCall
	}
	spared := c.sessionsOf(except)
	c.mu.Lock()
	c.moderation.muted, c.moderation.spared = active, spared
	c.mu.Unlock()
	if active {
		c.silence(func(m *session) bool { return c.moderation.holds(m) })
	}
	return nil
}

// member returns a session of a call.
func (s *Server) member(groupID, callID, sessionID string) (*session, error) {
	ses := s.find(groupID, sessionID)
	if ses == nil || ses.info.CallID != callID {
		return nil, ErrNoSession
	}
	return ses, nil
}

// moderation is what moderators have decided in a call. It is guarded by the call's mu.
type moderation struct {
	muted     bool            // the call is
	spared    map[string]bool // ids of sessions that this does not hold for
	blocked   map[block]bool
	withdrawn map[withdrawal]bool
}

// A block keeps a source of a session or, if that is "", of a user from being published.
type block struct {
	session, user string
	source        forward.Source
}

// A withdrawal keeps a section, as it is described now, from being published again by itself.
type withdrawal struct {
	session     *session
	mid, stream string
}

// holds reports whether the session is muted with the call.
func (m *moderation) holds(s *session) bool { return m.muted && !m.spared[s.info.SessionID] }

// blocks reports whether the session may not publish the source.
func (m *moderation) blocks(s *session, source forward.Source) bool {
	if len(m.blocked) == 0 {
		return false
	}
	sources := []forward.Source{source}
	switch source {
	case forward.ScreenAudio:
		sources = append(sources, forward.Screen, forward.Voice)
	case forward.Screen:
		sources = append(sources, forward.Camera)
	}
	return slices.ContainsFunc(sources, func(of forward.Source) bool {
		return m.blocked[block{session: s.info.SessionID, source: of}] || m.blocked[block{user: s.info.UserID, source: of}]
	})
}

// block blocks a source of a session and of its user.
func (m *moderation) block(s *session, source forward.Source) error {
	if len(m.blocked)+2 > maxBlocks {
		return limitError{LimitBlocks}
	}
	if m.blocked == nil {
		m.blocked = make(map[block]bool)
	}
	m.blocked[block{session: s.info.SessionID, source: source}] = true
	if s.info.UserID != "" {
		m.blocked[block{user: s.info.UserID, source: source}] = true
	}
	return nil
}

// withdraw notes that a publication was taken away.
func (m *moderation) withdraw(p *publication) {
	if m.withdrawn == nil {
		m.withdrawn = make(map[withdrawal]bool)
	}
	m.withdrawn[withdrawal{p.owner, p.mid, p.stream}] = true
}

// allow forgets the withdrawals of a session for which gone says so.
func (m *moderation) allow(s *session, gone func(withdrawal) bool) {
	for w := range m.withdrawn {
		if w.session == s && gone(w) {
			delete(m.withdrawn, w)
		}
	}
}

// allowed reports whether moderators let the session publish a section as that source.
func (c *call) allowed(s *session, mid, stream string, source forward.Source) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowedLocked(s, mid, stream, source)
}

func (c *call) allowedLocked(s *session, mid, stream string, source forward.Source) bool {
	return !c.moderation.blocks(s, source) && !c.moderation.withdrawn[withdrawal{s, mid, stream}]
}

// allowAgain lets a session publish a stream that was taken away: its endpoint has announced it anew.
func (c *call) allowAgain(s *session, stream string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moderation.allow(s, func(w withdrawal) bool { return w.stream == stream })
}

// withdraw takes the stream of that track away from everybody.
func (c *call) withdraw(trackID string, untilCallEnd bool) error {
	c.mu.Lock()
	var p *publication
	for _, q := range *c.publications.Load() {
		if q.trackID == trackID {
			p = q
		}
	}
	if p == nil {
		c.mu.Unlock()
		return ErrNoStream
	}
	var err error
	if untilCallEnd {
		err = c.moderation.block(p.owner, p.source)
	}
	gone := c.removeLocked(func(q *publication) bool {
		return q.owner == p.owner &&
			(q.source == p.source || p.source == forward.Screen && q.source == forward.ScreenAudio)
	})
	for _, q := range gone {
		c.moderation.withdraw(q)
		q.withdrawn.Store(true)
		withdrawn := q.event(Moderated)
		withdrawn.Detail = "unpublish"
		c.noteOfLocked(q.owner, withdrawn)
	}
	if p.source == forward.Screen {
		delete(c.sharers, p.owner)
	}
	c.mu.Unlock()
	c.removed(gone)
	return err
}

// sessionsOf returns the ids of sessions that are named, by themselves or by their streams.
func (c *call) sessionsOf(names []string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, name := range names {
		out[name] = true
	}
	for _, p := range *c.publications.Load() {
		if out[p.trackID] {
			out[p.owner.info.SessionID] = true
		}
	}
	return out
}

// silence mutes what is heard of members for which match says so. match is called with mu held.
func (c *call) silence(match func(*session) bool) {
	c.mu.Lock()
	for s := range c.members {
		if match(s) {
			s.silenced.Store(true)
			c.noteOfLocked(s, CallEvent{Type: Moderated, Detail: "mute"})
		}
	}
	published := *c.publications.Load()
	c.mu.Unlock()
	for _, p := range published {
		if p.owner.silenced.Load() && p.source.Sound() {
			p.media.Hush()
		}
	}
	c.touch()
}

// unsilence takes a moderator's mute back, as only the session's own endpoint may, and not while the
// call is muted.
func (c *call) unsilence(s *session) {
	c.mu.Lock()
	if !c.moderation.holds(s) {
		s.silenced.Store(false)
	}
	c.mu.Unlock()
}

// dropWithdrawals forgets those of sections that are not what they were.
func (c *call) dropWithdrawals(s *session, sections map[string]engine.Section) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moderation.allow(s, func(w withdrawal) bool {
		section, ok := sections[w.mid]
		return !ok || section.StreamID != w.stream
	})
}
