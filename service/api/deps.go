package api

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"rtcd/service/metrics"
	"rtcd/service/policy"
)

// Credentials are what a request says of who sent it.
type Credentials struct {
	Authorization string            // value of the header
	Ticket        string            // of a WebSocket; empty on every other route
	Remote        netip.Addr        // of the peer, or as a trusted proxy tells it
	Certificate   *x509.Certificate // verified leaf of the peer, nil without one
}

// A Principal is whose credentials a request carries.
type Principal struct {
	ClientID string // empty for operators
	Admin    bool
	Auditor  bool // may read the audit log and nothing else
	Roles    policy.Roles
	Epoch    uint64 // of the client's record, when the credentials were made
	// Hold, if set, is called when the client's WebSocket begins, and what it returns when the
	// WebSocket has ended.
	Hold func() (release func())
}

// The text of an error of the interfaces below is sent to the peer if the error says that it may:
// an error, or one it wraps, that has a method RetryAfter() time.Duration (the server is busy: 429,
// unless it has a status of its own), Unavailable() bool (it cannot be done now: 503) or Status() int
// (that status, 400 to 599) is a refusal, and Reason() string, if it has that too, its machine-readable
// reason. Refuse makes such errors. Every other error is a fault: it is logged, and the peer is told
// nothing but 500. The errors of Auth, of Tokens.Refresh, and of Remover where /unregister calls it, are
// refusals in any case, with the status that the protocol fixes.

// Auth is what the API needs of authentication.
type Auth interface {
	// Authenticate says who sent a request.
	Authenticate(ctx context.Context, c Credentials) (Principal, error)
	// Register adds a client with the default role.
	Register(ctx context.Context, clientID, authKey string) error
	// Login exchanges a client's key for a token. Of from, Authorization is not looked at.
	Login(ctx context.Context, clientID, authKey string, from Credentials) (token string, err error)
}

// Tokens makes dynamic credentials of a client that has authenticated itself.
type Tokens interface {
	// Refresh exchanges a live token for a new one, atomically.
	Refresh(ctx context.Context, token string) (string, time.Time, error)
	// Ticket returns what opens one WebSocket, once, for the client at this address.
	Ticket(ctx context.Context, p Principal, from Credentials) (string, time.Time, error)
}

// A Remover removes clients.
type Remover interface {
	// Remove removes a client. When it returns, the client's credentials are dead, its
	// connections closed and its sessions ended.
	Remove(ctx context.Context, clientID string) error
}

// Tenants is what operators do with clients. What a method does has taken effect everywhere, on
// connections, sessions and tokens, when it returns.
type Tenants interface {
	Remover
	// Rotate replaces a client's key. What the old one had opened ends after grace. It is refused
	// unless epoch is the client's, or 0, which is an operator's.
	Rotate(ctx context.Context, clientID, authKey string, epoch uint64, grace time.Duration) error
	// Revoke leaves a client without a key until Rotate.
	Revoke(ctx context.Context, clientID string) error
	SetRoles(ctx context.Context, clientID string, roles []string) error
	// Add adds a client; without roles (nil) it gets the default role.
	Add(ctx context.Context, clientID, authKey string, roles []string) error
	// List returns up to limit clients whose ids come after after, by id.
	List(ctx context.Context, after string, limit int) ([]Tenant, error)
	Tenant(ctx context.Context, clientID string) (Tenant, bool, error)
}

// A Tenant is a client as an operator sees it.
type Tenant struct {
	ClientID string    `json:"clientID"`
	Roles    []string  `json:"roles"`
	Created  time.Time `json:"created,omitzero"`
	Epoch    uint64    `json:"epoch"`
	Revoked  bool      `json:"revoked"`
}

// Calls is what the API needs of the calls.
type Calls interface {
	// Sessions lists the sessions of a call of a group, and reports whether there is such a call.
	Sessions(groupID, callID string) ([]Session, bool)
}

// Overview shows a client its calls.
type Overview interface {
	// Calls returns up to limit calls of a group whose ids come after after, by id.
	Calls(groupID, after string, limit int) []CallInfo
	Call(groupID, callID string) (CallInfo, bool)
}

// Managed is calls that the server made, and who may join them.
type Managed interface {
	Create(ctx context.Context, groupID string, o CallOptions) (callID string, err error)
	End(groupID, callID string) error
	Token(ctx context.Context, groupID, callID string, r TokenRequest) (Token, error)
}

// A Moderator acts on the sessions of a call.
type Moderator interface {
	Moderate(groupID, callID string, m Moderation) error
}

// A Session is one element of the answer of /calls/{callID}/sessions.
type Session struct {
	GroupID   string
	CallID    string
	UserID    string
	SessionID string
	Props     Props
}

// Props are what the join of a session carried. What it did not carry is null.
type Props struct {
	AV1Support  *bool   `json:"av1Support"`
	ChannelID   *string `json:"channelID"`
	DCSignaling *bool   `json:"dcSignaling"`
}

// A CallInfo is one call as its client sees it.
type CallInfo struct {
	CallID          string   `json:"callID"`
	Participants    int      `json:"participants"`
	Publishers      int      `json:"publishers"`
	Subscribers     int      `json:"subscribers"` // who only watch
	Managed         bool     `json:"managed,omitempty"`
	MaxParticipants int      `json:"maxParticipants,omitempty"`
	Streams         []Stream `json:"streams,omitzero"` // not in lists
}

// A Stream is one source that a session publishes.
type Stream struct {
	ID          string `json:"id"`
	Source      string `json:"source"`
	SessionID   string `json:"sessionID"`
	Subscribers int    `json:"subscribers"`
	Muted       bool   `json:"muted"`
}

// CallOptions are what a managed call is created with.
type CallOptions struct {
	CallID            string // empty: the server makes one
	MediaMode         string // "routed" (also if empty), "relayed", "auto"
	E2EE              bool
	MaxParticipants   int    // 0: the server's limit
	ArchiveMode       string // "none" (also if empty), "manual", "always"
	EndOnCreatorLeave bool
}

// A TokenRequest is what a join token is to allow.
type TokenRequest struct {
	Role    string // "" (everything), "subscriber", "publisher", "publisheronly", "moderator"
	UserID  string // who alone may use it
	TTL     time.Duration
	Data    string // handed back to the client, opaque
	MaxUses int
}

// A Token opens one call.
type Token struct {
	Token     string // the secret
	ID        string // may be logged
	ExpiresAt time.Time
}

// Actions of a Moderation.
const (
	Disconnect = "disconnect" // SessionID
	Unpublish  = "unpublish"  // StreamID; Until may be UntilCallEnd
	Mute       = "mute"       // SessionID
	MuteAll    = "mute_all"   // Except
	MuteState  = "mute_state" // Active, Except
)

// UntilCallEnd keeps what was unpublished from being published again.
const UntilCallEnd = "call_end"

// A Moderation is one act of a moderator. With each action stands what it looks at.
type Moderation struct {
	Action    string
	SessionID string
	StreamID  string
	Except    []string // sessions
	Active    bool
	Until     string
}

// A Backup copies the store.
type Backup interface {
	// Backup writes a copy of the running store.
	Backup(ctx context.Context, w io.Writer) error
}

// A Peer is who opens a WebSocket.
type Peer struct {
	ClientID string
	Epoch    uint64
	Roles    policy.Roles
	Remote   netip.Addr
}

// WebSockets is what the API needs of the WebSocket server.
type WebSockets interface {
	// Serve upgrades the request of an authenticated client and serves the connection.
	Serve(w http.ResponseWriter, r *http.Request, p Peer)
}

// Deps are the parts the API stands on. Auth, Calls and WebSockets have to be there; a route that
// stands on any other part that is nil does not exist.
type Deps struct {
	Auth       Auth
	Tokens     Tokens
	Remover    Remover
	Tenants    Tenants
	Calls      Calls
	Overview   Overview
	Managed    Managed
	Moderator  Moderator
	WebSockets WebSockets
	Backup     Backup
	Probes     Probes
	Load       *Load
	Drainer    Drainer
	Status     Status
	// Ready, if set, says why the server takes no new calls; nil if it does.
	Ready    func() error
	Policy   *policy.Table // nil: the built-in policy
	Recorder Recorder      // nil: no audit
	AuditLog AuditLog
	Feed     Feed
	Reports  Reports
	// Current says whether credentials are still good for a route; nil: always.
	Current func(p Principal, route string) bool
	Metrics *metrics.Metrics
	Log     *slog.Logger // nil: discard
}
