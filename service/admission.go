package service

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"rtcd/service/access"
	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/metrics"
	"rtcd/service/rtc"
	"rtcd/service/store"
)

// admission stands between those who ask for calls, over HTTP or a WebSocket, and the calls: package
// access says who may, package rtc does it. It is ws.Calls, and what the API needs of calls.
type admission struct {
	*fleet
	access     *access.Service
	recordable func() error // why nothing may happen, as it could not be recorded
}

// Join lets a session in, if it may.
func (a admission) Join(p ws.Peer, j wire.Join) error {
	if err := a.unrecorded(); err != nil {
		return err
	}
	for range joinTries {
		err := a.join(p, j)
		if !errors.Is(err, rtc.ErrNoSession) {
			return err
		}
	}
	return rtc.ErrNoSession
}

// joinTries is how often a session is let in that ends each time just while it joins again.
const joinTries = 3

// join is Join unless the session, which was in already, has ended meanwhile: then it has to be let in
// anew, or nobody would know of it, who might be disconnected and come back.
func (a admission) join(p ws.Peer, j wire.Join) error {
	grant, err := a.access.Admit(p.ClientID, p.Remote, j)
	if err != nil {
		return err
	}
	j.Token = "" // nobody else needs the secret
	err = a.JoinAs(p.ClientID, j, rtc.Grant{
		Role: grant.Role, MaxParticipants: grant.MaxParticipants, Linger: grant.Linger, Managed: grant.Managed,
		Present: grant.Again,
	})
	if err != nil {
		a.access.Undo(grant)
		return err
	}
	if grant.Managed {
		// The call may have ended since it was asked, and must not begin anew.
		if _, live := a.access.Info(p.ClientID, j.CallID); !live {
			a.Leave(p.ClientID, j.SessionID)
			return access.ErrCallEnded
		}
	}
	return nil
}

// Moderate does what a moderator wants. What is not the client's own looks like what is not there.
func (a admission) Moderate(p ws.Peer, m wire.Moderate) error {
	if err := a.unrecorded(); err != nil {
		return err
	}
	return a.moderate(p.ClientID, m)
}

// unrecorded refuses what comes over a WebSocket if it could not be recorded; the API does so for
// itself. What goes on in calls, and leaving them, is not refused.
func (a admission) unrecorded() error {
	err := a.recordable()
	if err != nil {
		err = api.Refuse(http.StatusServiceUnavailable, "audit_unavailable", err)
	}
	return err
}

func (a admission) moderate(group string, m wire.Moderate) error {
	switch m.Action {
	case wire.ActionDisconnect:
		// First the token: who is disconnected must not be back before it is dead.
		a.access.Eject(group, m.CallID, m.SessionID)
		return a.Disconnect(group, m.CallID, m.SessionID)
	case wire.ActionUnpublish:
		return a.Unpublish(group, m.CallID, m.StreamID, m.Until == wire.UntilCallEnd)
	case wire.ActionMute:
		return a.Mute(group, m.CallID, m.SessionID)
	case wire.ActionMuteAll:
		return a.MuteAll(group, m.CallID, m.Except)
	case wire.ActionMuteState:
		return a.SetMuteState(group, m.CallID, m.Active, m.Except)
	}
	return wire.ErrAction
}

// left notes an event that may be a session's last. A call that ends with its creator is ended by
// somebody else than the session that is just ending.
func (a admission) left(e rtc.Event, run func(func())) {
	if e.Kind == rtc.Closed && a.access.Left(e.GroupID, e.CallID, e.SessionID) {
		run(func() { _ = a.EndCall(e.GroupID, e.CallID) }) // it may be over already
	}
}

// managed shows calls to the API.
type managed struct{ admission }

// Sessions lists the sessions of a call.
func (m managed) Sessions(group, call string) ([]api.Session, bool) {
	list, ok := m.fleet.Sessions(group, call)
	out := make([]api.Session, 0, len(list))
	for _, i := range list {
		out = append(out, api.Session{
			GroupID: i.GroupID, CallID: i.CallID, UserID: i.UserID, SessionID: i.SessionID,
			Props: api.Props{AV1Support: i.AV1Support, ChannelID: i.ChannelID, DCSignaling: i.DCSignaling},
		})
	}
	return out, ok
}

// Calls returns calls of a group by id, those that wait for their first session included.
func (m managed) Calls(group, after string, limit int) []api.CallInfo {
	made := m.access.List(group)
	byID := make(map[string]api.CallInfo, len(made))
	for _, c := range made {
		byID[c.CallID] = madeCall(c)
	}
	for _, c := range m.fleet.Calls(group) {
		byID[c.CallID] = countCall(byID[c.CallID], c)
	}
	out := make([]api.CallInfo, 0, min(limit, len(byID)))
	for id, c := range byID {
		if id > after {
			c.Streams = nil
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b api.CallInfo) int { return strings.Compare(a.CallID, b.CallID) })
	return out[:min(limit, len(out))]
}

// Call returns one call of a group.
func (m managed) Call(group, call string) (api.CallInfo, bool) {
	made, waits := m.access.Info(group, call)
	var info api.CallInfo
	if waits {
		info = madeCall(made)
	}
	live, runs := m.fleet.Call(group, call)
	if runs {
		info = countCall(info, live)
	}
	if info.Streams == nil {
		info.Streams = []api.Stream{}
	}
	return info, waits || runs
}

func madeCall(c access.Managed) api.CallInfo {
	return api.CallInfo{CallID: c.CallID, Managed: true, MaxParticipants: c.Options.MaxParticipants}
}

func countCall(info api.CallInfo, c rtc.CallInfo) api.CallInfo {
	info.CallID = c.CallID
	info.Participants, info.Publishers, info.Subscribers = c.Participants, c.Publishers, c.Subscribers
	for _, s := range c.Streams {
		info.Streams = append(info.Streams, api.Stream{
			ID: s.ID, Source: s.Source, SessionID: s.SessionID, Subscribers: s.Subscribers, Muted: s.Muted,
		})
	}
	return info
}

// Create makes a call that can be joined.
func (m managed) Create(ctx context.Context, group string, o api.CallOptions) (string, error) {
	if m.Draining() { // nobody could join it
		return "", restError(rtc.ErrDraining)
	}
	id, err := m.access.Create(ctx, group, access.CallOptions{
		CallID: o.CallID, MediaMode: o.MediaMode, ArchiveMode: o.ArchiveMode, E2EE: o.E2EE,
		MaxParticipants: o.MaxParticipants, EndOnCreatorLeave: o.EndOnCreatorLeave,
	})
	return id, restError(err)
}

// End ends a call and all that is in it.
func (m managed) End(group, call string) error {
	known := m.access.End(group, call)
	err := m.EndCall(group, call)
	if known && errors.Is(err, rtc.ErrNoCall) {
		return nil
	}
	return restError(err)
}

// Token makes a join token.
func (m managed) Token(_ context.Context, group, call string, r api.TokenRequest) (api.Token, error) {
	ttl := int64(access.DefaultTTL)
	if r.TTL != 0 {
		ttl = int64(r.TTL / time.Second)
	}
	t, err := m.access.Mint(group, call, access.TokenRequest{
		UserID: r.UserID, Role: wire.CallRole(r.Role), TTL: ttl, Data: r.Data, MaxUses: r.MaxUses,
	})
	return api.Token{Token: t.Token, ID: t.ID, ExpiresAt: t.Expires}, restError(err)
}

// Moderate does what a moderator wants.
func (m managed) Moderate(group, call string, a api.Moderation) error {
	return restError(m.moderate(group, wire.Moderate{
		CallID: call, Action: wire.Action(a.Action), SessionID: a.SessionID, StreamID: a.StreamID,
		Except: a.Except, Active: a.Active, Until: a.Until,
	}))
}

// restError gives an error of the calls the status that fits its reason. One of package access has
// its own.
func restError(err error) error {
	var named interface{ Reason() string }
	var own interface{ Status() int }
	if err == nil || errors.As(err, &own) || !errors.As(err, &named) {
		return err
	}
	status := http.StatusBadRequest
	switch reason := named.Reason(); {
	case reason == "not_found":
		status = http.StatusNotFound
	case reason == "draining", reason == "at_capacity":
		status = http.StatusServiceUnavailable
	case strings.HasPrefix(reason, "limit_"):
		status = http.StatusTooManyRequests
	case reason == "call_full", reason == "call_ended", reason == "other_call":
		status = http.StatusConflict
	}
	return api.Refuse(status, named.Reason(), err)
}

// limitCallIDs counts calls that were not made because too many ids are kept of calls that are over.
const limitCallIDs metrics.Limit = "used_call_ids"

// callIDs shows the store to package access.
type callIDs struct {
	*store.Store
	metrics *metrics.Metrics
}

func (c callIDs) Use(ctx context.Context, group, call string, until time.Time) error {
	err := c.UseCallID(ctx, group, call, until)
	if errors.Is(err, store.ErrCallIDs) {
		c.metrics.LimitHit(limitCallIDs)
		return api.Refuse(http.StatusTooManyRequests, "limit_"+string(limitCallIDs), err)
	}
	return err
}

func (c callIDs) Used(group, call string) (bool, error) { return c.CallIDUsed(group, call) }

func isConflict(err error) bool { return errors.Is(err, store.ErrConflict) }
