package api

import (
	"net/http"
	"time"

	"rtcd/service/audit"
)

// Bounds of what is asked for a call.
const (
	maxParticipants = 1_000_000 // of a call; the server has its own limit below
	tokenTTL        = time.Hour // if none is asked for
	maxTokenTTL     = 24 * time.Hour
	maxTokenUses    = 1000
	maxTokenData    = 1 << 10
	maxExcept       = 64
)

// listSessions serves GET /calls/{callID}/sessions. A call that goes on is never reported as not
// found: backends would end it.
func (x *exchange) listSessions() {
	if sessions, ok := x.sessions(); ok {
		x.write(http.StatusOK, sessions)
	}
}

// readSession serves GET /calls/{callID}/sessions/{sessionID}.
func (x *exchange) readSession() {
	sessions, ok := x.sessions()
	if !ok {
		return
	}
	for i := range sessions {
		if sessions[i].SessionID == x.vars["sessionID"] {
			x.write(http.StatusOK, sessions[i])
			return
		}
	}
	x.refuse(problem{http.StatusNotFound, reasonNotFound, "failed to get session config: session not found"})
}

func (x *exchange) sessions() ([]Session, bool) {
	sessions, ok := x.h.Calls.Sessions(x.p.ClientID, x.vars["callID"])
	if !ok || len(sessions) == 0 {
		x.refuse(problem{http.StatusNotFound, reasonNotFound, "failed to get session configs: call not found"})
		return nil, false
	}
	return sessions, true
}

// listCalls serves GET /calls: those of the client, and of them a page.
func (x *exchange) listCalls() {
	after, limit, ok := x.page(validID)
	if !ok {
		return
	}
	calls := x.h.Overview.Calls(x.p.ClientID, after, limit+1)
	next := ""
	if len(calls) > limit {
		calls = calls[:limit]
		next = calls[limit-1].CallID
	}
	if calls == nil {
		calls = []CallInfo{}
	}
	x.write(http.StatusOK, struct {
		Calls []CallInfo `json:"calls"`
		Next  string     `json:"next,omitempty"`
	}{calls, next})
}

// readCall serves GET /calls/{callID}.
func (x *exchange) readCall() {
	if _, ok := x.query(); !ok {
		return
	}
	info, ok := x.h.Overview.Call(x.p.ClientID, x.vars["callID"])
	if !ok {
		x.refuse(noCall)
		return
	}
	if info.Streams == nil {
		info.Streams = []Stream{}
	}
	x.write(http.StatusOK, info)
}

// createCall serves POST /calls.
func (x *exchange) createCall() {
	var o CallOptions
	if !x.decode(
		idField("callID", &o.CallID),
		enumField("mediaMode", &o.MediaMode, "routed", "relayed", "auto"),
		boolField("e2ee", &o.E2EE),
		intField("maxParticipants", &o.MaxParticipants, 0, maxParticipants),
		enumField("archiveMode", &o.ArchiveMode, "none", "manual", "always"),
		boolField("endOnCreatorLeave", &o.EndOnCreatorLeave),
	) {
		return
	}
	x.callID = o.CallID
	id, err := x.h.Managed.Create(x.r.Context(), x.p.ClientID, o)
	if err != nil {
		x.fail(err)
		return
	}
	x.callID = id
	x.write(http.StatusCreated, map[string]string{"code": "201", "callID": id})
}

// endCall serves DELETE /calls/{callID}.
func (x *exchange) endCall() {
	if err := x.h.Managed.End(x.p.ClientID, x.vars["callID"]); err != nil {
		x.failCall(err)
		return
	}
	x.done()
}

// mintToken serves POST /calls/{callID}/tokens.
func (x *exchange) mintToken() {
	r := TokenRequest{TTL: tokenTTL, MaxUses: 1}
	if !x.decode(
		enumField("role", &r.Role, "", "subscriber", "publisher", "publisheronly", "moderator"),
		idField("userID", &r.UserID).must(),
		secondsField("ttl", &r.TTL, time.Second, maxTokenTTL),
		textField("data", &r.Data, "text of at most 1024 bytes", func(s string) bool { return len(s) <= maxTokenData }),
		intField("maxUses", &r.MaxUses, 1, maxTokenUses),
	) {
		return
	}
	x.user = r.UserID
	t, err := x.h.Managed.Token(x.r.Context(), x.p.ClientID, x.vars["callID"], r)
	if err != nil {
		x.failCall(err)
		return
	}
	x.object = audit.Object{Kind: "token", ID: t.ID}
	x.secret()
	x.write(http.StatusCreated, map[string]string{
		"code": "201", "callID": x.vars["callID"], "token": t.Token, "tokenID": t.ID, "expiresAt": stamp(t.ExpiresAt),
	})
}

// disconnect serves DELETE /calls/{callID}/sessions/{sessionID}.
func (x *exchange) disconnect() {
	x.act(Moderation{Action: Disconnect, SessionID: x.vars["sessionID"]})
}

// moderate serves POST /calls/{callID}/moderate.
func (x *exchange) moderate() {
	var m Moderation
	given := map[string]bool{}
	note := func(f field) field {
		set := f.set
		f.set = func(v any) *problem { given[f.name] = true; return set(v) }
		return f
	}
	if !x.decode(
		enumField("action", &m.Action, Disconnect, Unpublish, Mute, MuteAll, MuteState).must(),
		note(idField("sessionID", &m.SessionID)),
		note(idField("streamID", &m.StreamID)),
		note(listField("except", &m.Except, maxExcept, "session ids", validID)),
		note(boolField("active", &m.Active)),
		note(enumField("until", &m.Until, "", UntilCallEnd)),
	) {
		return
	}
	x.sessionID = m.SessionID
	if p := actionFields(m.Action, given); p != nil {
		x.refuse(*p)
		return
	}
	x.act(m)
}

// actionNeeds says which fields go with an action, the ones it cannot do without first.
var actionNeeds = map[string]struct{ must, may string }{
	Disconnect: {must: "sessionID"},
	Unpublish:  {must: "streamID", may: "until"},
	Mute:       {must: "sessionID"},
	MuteAll:    {may: "except"},
	MuteState:  {must: "active", may: "except"},
}

// actionFields refuses fields that an action does not look at, and the lack of one that it needs.
func actionFields(action string, given map[string]bool) *problem {
	needs := actionNeeds[action]
	if needs.must != "" && !given[needs.must] {
		return &problem{http.StatusBadRequest, reasonMissing, "field \"" + needs.must + "\" is missing for " + action}
	}
	for _, name := range []string{"sessionID", "streamID", "except", "active", "until"} {
		if given[name] && name != needs.must && name != needs.may {
			return &problem{http.StatusBadRequest, reasonUnknownField, "field \"" + name + "\" does not go with " + action}
		}
	}
	return nil
}

func (x *exchange) act(m Moderation) {
	if m.StreamID != "" {
		x.object = audit.Object{Kind: "stream", ID: m.StreamID}
	}
	if err := x.h.Moderator.Moderate(x.p.ClientID, x.vars["callID"], m); err != nil {
		x.failCall(err)
		return
	}
	x.reason = m.Action
	x.done()
}

// failCall answers with the problem of an error. What is not there, and what is not the client's,
// looks the same.
func (x *exchange) failCall(err error) {
	p := x.problemOf(err)
	if p.status == http.StatusNotFound {
		p = noCall
	}
	x.refuse(p)
}
