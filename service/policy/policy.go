// Package policy says who may do what: which role a route of the HTTP API or a message of a
// WebSocket asks for, and which roles an account has. It is pure: a Table is compiled once, from
// the configuration and the list of what really exists, and never changes; asking it allocates
// nothing.
//
// Whatever the table does not name is denied to everybody.
package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Roles that the server knows by itself. All others are free strings.
const (
	Guest   = "guest"   // what everybody has, also without credentials
	Client  = "client"  // an ordinary backend
	Admin   = "admin"   // the operator; never stored for an account
	Auditor = "auditor" // reads the audit log; never stored for an account

	CreateCalls  = "calls.create"
	CreateTokens = "tokens.create"
	Moderate     = "moderate"
)

// MessagePrefix stands before the type of a client's WebSocket message where a table names it, as
// in "ws:join".
const MessagePrefix = "ws:"

// socketRoute is how a WebSocket begins. An operator has no calls, so it never begins one.
const socketRoute = "GET /ws"

// Bounds of a configuration.
const (
	maxPatternBytes = 256 // of a regular expression
	maxRules        = 256 // in one direction
	maxRoles        = 64  // different ones: a set is one word
)

// ErrConfig is wrapped by every error of Compile.
var ErrConfig = errors.New("policy")

// A Config is what the operator says. Its zero value is the built-in policy.
type Config struct {
	// Roles replaces the role that a route ("POST /calls/{callID}/tokens") or a client's message
	// ("ws:join") asks for.
	Roles map[string]string
	// DefaultRole is what a self-registered account gets. Empty means Client.
	DefaultRole string
	// ClientIncludes are the roles that who has Client has as well. nil means CreateCalls,
	// CreateTokens and Moderate; an empty list, none.
	ClientIncludes []string
	// In and Out list the messages that may come from and go to a client. An empty list means
	// the built-in set: every message there is. A message from a client needs its role besides.
	In, Out []Rule
}

// A Rule names messages: exactly one of Type and TypeRE is set.
type Rule struct {
	Type   string // the type itself
	TypeRE string // an RE2 expression that matches the whole type, at most 256 bytes
	Role   string // who has to be on the other end; empty means anybody
}

// A Table answers. It is immutable and safe for concurrent use.
type Table struct {
	routes      map[string]requirement
	in          map[string]requirement // by message type
	inOK, outOK []rule                 // nil: everything known
	bits        map[string]Roles       // of every role that is asked for, without what it includes
	client      Roles                  // with what it includes
	defaultRole string
}

// A requirement is the one role that something asks for.
type requirement struct {
	role     string
	need     Roles
	operator bool // open to the admin whatever the role
}

// Roles is a set of roles of one Table. The zero value is the empty set, which is allowed nothing,
// not even what a guest is. It can be compared.
type Roles struct{ bits uint64 }

// has reports whether r has every role of need.
func (r Roles) has(need Roles) bool { return r.bits&need.bits == need.bits && need.bits != 0 }

func (r Roles) with(other Roles) Roles { return Roles{r.bits | other.bits} }

// outTypes are the messages of the server.
var outTypes = []string{"hello", "rtc", "close", "vad", "error", "stats"}

// Compile checks cfg against builtin, which names every route and message that exists and the role
// it asks for by itself, and puts the two together. The error names the offending key.
func Compile(cfg Config, builtin map[string]string) (*Table, error) {
	t := &Table{
		routes: make(map[string]requirement, len(builtin)), in: make(map[string]requirement),
		bits: make(map[string]Roles), defaultRole: cfg.DefaultRole,
	}
	if t.defaultRole == "" {
		t.defaultRole = Client
	}
	for _, role := range []string{Guest, Client, Admin, Auditor} {
		if _, err := t.role(role); err != nil {
			return nil, err
		}
	}
	if err := t.compileAccounts(cfg); err != nil {
		return nil, err
	}
	if err := t.compileRoles(cfg.Roles, builtin); err != nil {
		return nil, err
	}
	var err error
	if t.inOK, err = t.compileRules("policy.in_ok", cfg.In, slices.Collect(maps.Keys(t.in))); err != nil {
		return nil, err
	}
	if t.outOK, err = t.compileRules("policy.out_ok", cfg.Out, outTypes); err != nil {
		return nil, err
	}
	return t, nil
}

// role returns the set of one role and makes it known.
func (t *Table) role(name string) (Roles, error) {
	if !ValidRole(name) {
		return Roles{}, fmt.Errorf("role %.40q is not 1 to %d of a-z 0-9 . _ -", name, MaxRoleBytes)
	}
	if r, ok := t.bits[name]; ok {
		return r, nil
	}
	if len(t.bits) == maxRoles {
		return Roles{}, fmt.Errorf("role %q is one more than the %d that can be", name, maxRoles)
	}
	r := Roles{1 << len(t.bits)}
	t.bits[name] = r
	return r, nil
}

// compileAccounts reads what accounts have.
func (t *Table) compileAccounts(cfg Config) error {
	if Reserved(t.defaultRole) {
		return fmt.Errorf("%w: policy.default_role: %q belongs to operators", ErrConfig, t.defaultRole)
	}
	if _, err := t.role(t.defaultRole); err != nil {
		return fmt.Errorf("%w: policy.default_role: %w", ErrConfig, err)
	}
	includes := cfg.ClientIncludes
	if includes == nil {
		includes = []string{CreateCalls, CreateTokens, Moderate}
	}
	t.client = t.bits[Guest].with(t.bits[Client])
	seen := make(map[string]bool, len(includes))
	for _, name := range includes {
		r, err := t.role(name)
		switch {
		case err != nil:
		case Reserved(name):
			err = fmt.Errorf("%q belongs to operators", name)
		case seen[name]:
			err = fmt.Errorf("%q is there twice", name)
		}
		if err != nil {
			return fmt.Errorf("%w: policy.client_includes: %w", ErrConfig, err)
		}
		seen[name] = true
		t.client = t.client.with(r)
	}
	return nil
}

// compileRoles fills the routes and the messages.
func (t *Table) compileRoles(configured, builtin map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(configured)) {
		if _, ok := builtin[key]; !ok {
			return fmt.Errorf("%w: policy.roles: there is no route or message %.80q", ErrConfig, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(builtin)) {
		name := builtin[key]
		if own, ok := configured[key]; ok {
			if err := mayBecome(name, own); err != nil {
				return fmt.Errorf("%w: policy.roles: %q: %w", ErrConfig, key, err)
			}
			name = own
		}
		need, err := t.role(name)
		if err != nil {
			return fmt.Errorf("%w: policy.roles: %q: %w", ErrConfig, key, err)
		}
		typ, message := strings.CutPrefix(key, MessagePrefix)
		req := requirement{role: name, need: need, operator: !message && key != socketRoute && name != Auditor}
		t.routes[key] = req
		if message {
			t.in[typ] = req
		}
	}
	return nil
}

// mayBecome reports whether the role of a route may be replaced: nothing that asks for
// credentials is opened to who has none, and nothing of operators to an account.
func mayBecome(builtin, own string) error {
	switch {
	case own == Guest && builtin != Guest:
		return errors.New("cannot be opened to guests")
	case Reserved(builtin) && !Reserved(own):
		return fmt.Errorf("is for operators, not for role %.40q", own)
	}
	return nil
}

// Required returns the role that a route or message asks for, and whether there is such a one.
func (t *Table) Required(route string) (role string, ok bool) {
	r, ok := t.routes[route]
	return r.role, ok
}

// Routes returns the names of all routes and messages, sorted.
func (t *Table) Routes() []string { return slices.Sorted(maps.Keys(t.routes)) }

// DefaultRole returns the role of self-registered accounts.
func (t *Table) DefaultRole() string { return t.defaultRole }

// Set returns the roles of an account: Guest, what names say and what they include. Names that
// nothing asks for give no rights, nor do those of operators; they are returned, for the caller to
// warn of.
func (t *Table) Set(names []string) (Roles, []string) {
	r := t.bits[Guest]
	var unknown []string
	for _, name := range names {
		one, ok := t.bits[name]
		switch {
		case !ok, Reserved(name):
			unknown = append(unknown, name)
		case name == Client:
			r = r.with(t.client)
		default:
			r = r.with(one)
		}
	}
	return r, unknown
}

// Guest returns the roles of who has shown no credentials.
func (t *Table) Guest() Roles { return t.bits[Guest] }

// Admin returns the roles of the operator.
func (t *Table) Admin() Roles { return t.bits[Guest].with(t.bits[Admin]) }

// Auditor returns the roles of who may read the audit log.
func (t *Table) Auditor() Roles { return t.bits[Guest].with(t.bits[Auditor]) }

// Allows reports whether r is enough for a route or a message. Nobody is allowed what the table
// does not name. The admin is allowed everything but what is the auditor's, a WebSocket and its
// messages.
func (t *Table) Allows(r Roles, route string) bool {
	req, ok := t.routes[route]
	return ok && t.meets(r, req)
}

func (t *Table) meets(r Roles, req requirement) bool {
	if r.has(t.bits[Admin]) {
		return req.operator
	}
	return r.has(req.need)
}

// Reserved reports whether a role belongs to operators and is never one of an account.
func Reserved(role string) bool { return role == Admin || role == Auditor }

// MaxRoleBytes bounds the name of a role.
const MaxRoleBytes = 32

// ValidRole reports whether s can name a role: 1 to 32 of a-z, 0-9, dot, underscore and hyphen.
func ValidRole(s string) bool {
	if s == "" || len(s) > MaxRoleBytes {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// A rule is a compiled Rule. What messages there are is known, so that none has to be compared with an
// expression when it comes.
type rule struct {
	types []string // those it is about
	need  Roles    // none: anybody
}
