// Package access decides who may join which call, and as what.
//
// A backend may make a call in advance, under an id of the server's choice, and give each
// participant a token for it. A token opens one call for one user, in one role, a limited number
// of times, and dies with the call. Everything is keyed by the group, which is the authenticated
// client's id: what belongs to another client looks like what does not exist.
//
// The state of calls is in memory only and gone after a restart; that an id was used is kept by
// CallIDs, so that a call that is over does not come back. Of tokens only a hash is kept.
package access

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/base32"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rtcd/service/api/wire"
)

// CallIDs remembers, also over a restart, the ids of calls that were made by Create.
type CallIDs interface {
	// Use notes an id until a time. It fails with an error that IsConflict of the Config knows if
	// the id was noted before.
	Use(ctx context.Context, group, call string, until time.Time) error
	// Used reports whether an id was noted.
	Used(group, call string) (bool, error)
}

// Config holds the settings of a Service. A zero value means the default named with the field.
type Config struct {
	RequireJoinToken bool // every join needs a token; off, as long as there are clients without
	ManagedOnly      bool // only calls made by Create may be joined; off

	Linger                time.Duration // 30 s that a managed call outlives its last session; negative: none
	UnusedFor             time.Duration // 24 h after which a call that nobody joined is over
	MaxParticipants       int           // of any call; 0: as many as the media server takes
	TokensPerMinute       int           // 600 made for one client
	WrongTokensPerMinute  int           // 10 from one address; further ones are told so
	TokensPerCall         int           // 10,000 that live
	TokensPerClient       int           // 100,000 that live
	Tokens                int           // 500,000 that live, of all clients
	ManagedCallsPerClient int           // 2,000; negative: no limit
	TokenData             DataPolicy    // what Token data may hold; DataOpaque

	// IsConflict says that an error of CallIDs.Use means that the id was used before. Required
	// with CallIDs.
	IsConflict func(error) bool

	// OnLimit, if set, is told the name of a limit that refuses something: a Limit constant. It must
	// neither wait nor call the Service.
	OnLimit func(limit string)
	Log     *slog.Logger // nil: discard
}

// Limits by name.
const (
	LimitTokensPerMinute  = "tokens_per_minute"
	LimitTokensPerCall    = "tokens_per_call"
	LimitTokensPerClient  = "join_tokens_per_client"
	LimitTokens           = "join_tokens"
	LimitWrongTokens      = "wrong_tokens_per_minute"
	LimitManagedPerClient = "managed_calls_per_client"
	LimitEjected          = "ejected_per_call"
)

// Bounds that are no setting.
const (
	// MaxTTL bounds how long a token is good, DefaultTTL is for who does not care. In seconds.
	MaxTTL     = 24 * 60 * 60
	DefaultTTL = 60 * 60

	maxUses        = 1000 // of one token
	maxParticipant = 1<<31 - 1
	maxEjected     = 10_000 // users and sessions of one call
	maxAddresses   = 65_536 // with a wrong token within a minute
	tidyBatch      = 256    // things that are over, removed at once

	// usedFor is how long an id stays used, from its creation: at least 30 days after the end
	// of a call that lasted up to 30.
	usedFor = 60 * 24 * time.Hour
)

func (c Config) withDefaults() Config {
	orDefault(&c.Linger, 30*time.Second)
	orDefault(&c.UnusedFor, 24*time.Hour)
	orDefault(&c.TokensPerMinute, 600)
	orDefault(&c.WrongTokensPerMinute, 10)
	orDefault(&c.TokensPerCall, 10_000)
	orDefault(&c.TokensPerClient, 100_000)
	orDefault(&c.Tokens, 500_000)
	orDefault(&c.ManagedCallsPerClient, 2000)
	if c.OnLimit == nil {
		c.OnLimit = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// A Service keeps who may join what. Its methods are safe for concurrent use; but for Create,
// none waits for anything but a look into CallIDs.
type Service struct {
	cfg Config
	ids CallIDs
	log *slog.Logger

	mu      sync.Mutex
	groups  map[string]*group
	tokens  map[string]*token // by token id
	expiry  expiryHeap        // tokens, and calls that nobody has joined yet
	wrong   wrongTokens
	session uint64 // counts admissions, to tell one from another of the same session id
}

// A group is what is kept of one client.
type group struct {
	calls    map[string]*call
	managed  int // calls made by Create, and those being made
	tokens   int
	minting  *rate.Limiter // nil until the first token
	mintedAt time.Time
}

// A call is one that somebody was admitted to and that has not ended, or a managed one that waits.
type call struct {
	group, id string
	managed   bool
	options   CallOptions
	created   time.Time
	unused    entry // in expiry, as long as nobody has joined

	members map[string]*member // by session id
	joined  bool               // a session has been in it: its end will be told
	over    bool               // its end was told while members were left
	creator string             // the user of the first session
	tokens  map[string]*token

	ejectedSessions, ejectedUsers map[string]struct{}
	sealed                        bool // too many were ejected to know them all: nobody enters any more
}

// A member is one admitted session.
type member struct {
	user  string
	token *token // nil without
	seq   uint64
}

// New returns a Service. A nil ids remembers nothing of calls that are over.
func New(cfg Config, ids CallIDs) *Service {
	cfg = cfg.withDefaults()
	return &Service{
		cfg: cfg, ids: ids, log: cfg.Log,
		groups: make(map[string]*group), tokens: make(map[string]*token),
		wrong: newWrongTokens(cfg.WrongTokensPerMinute),
	}
}

// groupOf returns what is kept of a client, from now on if there was nothing.
func (s *Service) groupOf(id string) *group {
	g := s.groups[id]
	if g == nil {
		g = &group{calls: make(map[string]*call)}
		s.groups[id] = g
	}
	return g
}

// sweep forgets a client of which nothing is left that matters.
func (s *Service) sweep(id string, now time.Time) {
	g := s.groups[id]
	if g != nil && len(g.calls) == 0 && g.managed == 0 && (g.minting == nil || now.Sub(g.mintedAt) > time.Minute) {
		delete(s.groups, id)
	}
}

func (s *Service) callOf(groupID, callID string) *call {
	if g := s.groups[groupID]; g != nil {
		return g.calls[callID]
	}
	return nil
}

// end forgets a call; its tokens are dead.
func (s *Service) end(c *call, now time.Time) {
	for _, t := range c.tokens {
		s.kill(t)
	}
	s.expiry.drop(&c.unused)
	g := s.groups[c.group]
	delete(g.calls, c.id)
	if c.managed {
		g.managed--
	}
	s.sweep(c.group, now)
}

// kill makes a token as if it had never been.
func (s *Service) kill(t *token) {
	if s.tokens[t.id] != t {
		return
	}
	delete(s.tokens, t.id)
	delete(t.call.tokens, t.id)
	s.groups[t.call.group].tokens--
	s.expiry.drop(&t.entry)
}

// tidy removes some of what is over by itself: as much as anybody may add in the meantime.
func (s *Service) tidy(now time.Time) {
	for range tidyBatch {
		if len(s.expiry) == 0 || now.Before(s.expiry[0].at) {
			return
		}
		switch e := s.expiry[0]; {
		case e.token != nil:
			s.kill(e.token)
		case e.call.joined: // whose end will be told
			heap.Pop(&s.expiry)
		case len(e.call.members) > 0: // somebody is just coming in
			e.at = now.Add(time.Minute)
			heap.Fix(&s.expiry, 0)
		default:
			s.end(e.call, now)
		}
	}
}

// newID returns 128 random bits in 26 characters of a-z and 2-7.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// checkID says whether an id of a caller can be one.
func checkID(id string) bool { return id != "" && wire.CheckID(id) == nil }
