// Package audit keeps the record of who did what, and proves that it was not changed afterwards.
//
// A Recorder takes events and never waits for a disk: one goroutine writes them in groups to a log of
// JSON lines that only grows. Each line carries the SHA-256 of itself and of its predecessor, so that an
// edited, deleted or moved line shows (Verify); a small file beside the log says how far it reaches, so
// that a cut tail shows too. Query reads the log in pages, and sinks send it to a syslog server as
// DICOM PS3.15 A.5 audit messages; the log itself is their spool.
//
// An event names identities, never contents: it has no place for SDP, candidates, keys, tokens or
// token data, and the ids of users are kept as a keyed hash unless the operator wants otherwise.
package audit

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An ActorKind says what an actor is.
type ActorKind string

// The kinds of actors.
const (
	// Client is a backend with an account; its ID is the clientID.
	Client ActorKind = "client"
	// Operator is who holds the admin or auditor key, or runs a command on the machine.
	Operator ActorKind = "operator"
	// Participant is somebody in a call; its ID is a sessionID, never a user's id.
	Participant ActorKind = "participant"
	// Guest is whoever showed no credentials, or wrong ones.
	Guest ActorKind = "guest"
	// Server is this server itself.
	Server ActorKind = "server"
)

// An Action is the kind of a transaction, as in DICOM PS3.15 A.5 (EventActionCode).
type Action string

// The actions.
const (
	Create  Action = "C"
	Read    Action = "R"
	Update  Action = "U"
	Delete  Action = "D"
	Execute Action = "E"
)

// An Outcome is how a transaction ended, as in DICOM PS3.15 A.5 (EventOutcomeIndicator).
type Outcome int

// The outcomes.
const (
	// Success: it was done.
	Success Outcome = 0
	// MinorFailure: refused or failed through a fault of the caller; trying again may help.
	MinorFailure Outcome = 4
	// SeriousFailure: it was not done, through a fault of ours or a denied right.
	SeriousFailure Outcome = 8
	// MajorFailure: the server or the log itself is not available any more.
	MajorFailure Outcome = 12
)

// Caps on the strings of an event, in bytes. What is longer is cut.
const (
	MaxID     = 256
	MaxType   = 64
	MaxReason = 1024
)

// An Actor is who did it.
type Actor struct {
	Kind ActorKind
	ID   string
}

// An Object is what it was done to: a "client", "call", "session", "token", "stream", "audit", …
type Object struct {
	Kind string
	ID   string
}

// An Event is one transaction. Strings may hold anything: they are cut to their caps, and what is
// not printable is escaped wherever they are written.
type Event struct {
	// Seq is the position in the log, from 1 on. The log sets it.
	Seq uint64
	// Time is when it happened, kept in UTC to the millisecond; zero means now.
	Time time.Time
	// Actor is who asked for it.
	Actor Actor
	// Remote is the "address:port" of the socket it came over; empty for the server's own.
	Remote string
	// Type names the transaction: "client.register", "ws.join", …
	Type string
	// Action is its kind; empty means Execute.
	Action Action
	// Object is what it was done to; may be zero.
	Object Object
	// CallID and SessionID say where; may be empty.
	CallID    string
	SessionID string
	// User is the id of the user concerned. It reaches the log as Config.UserID says.
	User string
	// Outcome is how it truly ended.
	Outcome Outcome
	// Reason is the machine-readable cause of a failure, or a short text. Never a secret.
	Reason string
}

// normal returns e in the only form the log takes: times in UTC and whole milliseconds, strings of
// valid UTF-8 within their caps, actions and outcomes of the lists above.
func (e Event) normal(now time.Time) Event {
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	if y := e.Time.Year(); y < 1970 || y > 9999 {
		e.Time = now.UTC().Truncate(time.Millisecond)
	}
	e.Actor = Actor{Kind: ActorKind(capped(string(e.Actor.Kind), MaxType)), ID: capped(e.Actor.ID, MaxID)}
	e.Object = Object{Kind: capped(e.Object.Kind, MaxType), ID: capped(e.Object.ID, MaxID)}
	e.Remote = capped(e.Remote, MaxID)
	e.Type = capped(e.Type, MaxType)
	e.CallID = capped(e.CallID, MaxID)
	e.SessionID = capped(e.SessionID, MaxID)
	e.User = capped(e.User, MaxID)
	e.Reason = capped(e.Reason, MaxReason)
	if e.Type == "" {
		e.Type = "unknown"
	}
	if !validAction(e.Action) {
		e.Action = Execute
	}
	if !validOutcome(e.Outcome) {
		e.Outcome = SeriousFailure
	}
	return e
}

func validAction(a Action) bool {
	switch a {
	case Create, Read, Update, Delete, Execute:
		return true
	}
	return false
}

func validOutcome(o Outcome) bool {
	switch o {
	case Success, MinorFailure, SeriousFailure, MajorFailure:
		return true
	}
	return false
}

// capped returns s as valid UTF-8 of at most limit bytes, cut between runes.
func capped(s string, limit int) string {
	if len(s) > limit {
		cut := limit
		for cut > limit-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	if !utf8.ValidString(s) {
		// Each invalid byte becomes three.
		s = capped(strings.ToValidUTF8(s, "\uFFFD"), limit)
	}
	return s
}

// plain reports whether r may stand for itself in a line of text: it prints, and neither moves the
// cursor nor turns the direction of what follows (U+202E and its like are of category Cf).
func plain(r rune) bool { return unicode.IsPrint(r) }

// printable returns s with everything that is not plain replaced.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if plain(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// Client returns the clientID the event is about: the actor's, if the actor is a client, or else that of
// the object. Empty if neither is one.
func (e Event) Client() string {
	switch {
	case e.Actor.Kind == Client:
		return e.Actor.ID
	case e.Object.Kind == string(Client):
		return e.Object.ID
	}
	return ""
}
