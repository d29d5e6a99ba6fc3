package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"
)

// Bounds of aliases.
const (
	ufragLength = 16 // characters, of 24 and 128 bits at least (RFC 8445 section 5.3)
	pwdLength   = 32
	maxAliases  = 4 // of one agent, the latest
	maxWaiting  = 8 // requests that are kept until their agent is there
	agentTime   = 3 * time.Second
)

const attrIntegritySHA256 stun.AttrType = 0x001C // RFC 8489 section 14.6

// credentials are those of an agent (RFC 8445 section 5.3).
type credentials struct{ ufrag, pwd string }

func newCredentials() credentials {
	return credentials{ufrag: rand.Text()[:ufragLength], pwd: (rand.Text() + rand.Text())[:pwdLength]}
}

// An alias is a set of credentials by which an endpoint knows an agent that has others. Requests and
// responses are translated where they leave and reach the sockets, below the agent.
//
// That is how a restart of ICE can be offered before the endpoint agrees to it. Pion's agent drops all
// it has when it restarts, and it would do so for an offer that may be late, or never be answered.
// So it goes on as it is, under its old credentials. The first request with the new ones that is
// authentic is what makes it restart, or the answer if that is here before.
type alias struct {
	credentials
	link  *link
	taken func() // called for the first authentic request; it may only post

	used atomic.Bool
}

// link is what the aliases of one agent have in common.
type link struct {
	mu      sync.Mutex
	agent   credentials // the agent's own
	theirs  string      // how the agent calls the endpoint
	pwd     string      // the endpoint's, to sign requests with; "": not known
	seen    string      // how the endpoint calls itself in requests
	current *alias      // in force; nil: the agent goes by its own name
	pending *alias      // the agent has not restarted for it yet
	offered bool        // offers to come are to have it
	former  []*alias
	waiting []waiting     // requests for pending
	ready   chan struct{} // closed when there is no pending one any more
}

// waiting is a request that waits for its agent.
type waiting struct {
	mux  *udpMux
	b    []byte
	from netip.AddrPort
}

// aliases are those of an engine. They are empty but for agents that have been restarted.
type aliases struct {
	some atomic.Int64

	mu     sync.RWMutex
	named  map[string]*alias // by their own names
	agents map[string]*link  // by those of agents
}

func newAliases() *aliases {
	return &aliases{named: make(map[string]*alias), agents: make(map[string]*link)}
}

// find returns the alias of that name, nil if there is none.
func (t *aliases) find(name []byte) *alias {
	if name == nil || t.some.Load() == 0 {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.named[string(name)]
}

// of returns the link of an agent, nil if it has no alias.
func (t *aliases) of(agent string) *link {
	if t.some.Load() == 0 {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.agents[agent]
}

func (t *aliases) add(a *alias) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.named[a.ufrag] == nil {
		t.some.Add(1)
	}
	t.named[a.ufrag] = a
}

func (t *aliases) remove(all ...*alias) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range all {
		if a != nil && t.named[a.ufrag] == a {
			delete(t.named, a.ufrag)
			t.some.Add(-1)
		}
	}
}

// rename notes an agent's name; "" is none.
func (t *aliases) rename(l *link, old, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.agents[old] == l {
		delete(t.agents, old)
	}
	if name != "" {
		t.agents[name] = l
	}
}

// parse returns b as a STUN message of its own, nil if it is none.
func parse(b []byte) *stun.Message {
	m := &stun.Message{Raw: bytes.Clone(b)}
	if m.Decode() != nil || m.Type.Method != stun.MethodBinding {
		return nil
	}
	return m
}

// sign returns m under another user name, if it has one, and signed with pwd.
func sign(m *stun.Message, name, pwd string) []byte {
	out := stun.New()
	out.Type, out.TransactionID = m.Type, m.TransactionID
	out.WriteHeader()
	for _, a := range m.Attributes {
		switch a.Type {
		case stun.AttrMessageIntegrity, stun.AttrFingerprint, attrIntegritySHA256:
		case stun.AttrUsername:
			out.Add(stun.AttrUsername, []byte(name))
		default:
			out.Add(a.Type, a.Value)
		}
	}
	if stun.NewShortTermIntegrity(pwd).AddTo(out) != nil || stun.Fingerprint.AddTo(out) != nil {
		return nil
	}
	return out.Raw
}

// authentic returns a request if it is signed with the alias's password.
func (a *alias) authentic(b []byte) *stun.Message {
	m := parse(b)
	if m == nil || m.Type.Class != stun.ClassRequest || stun.NewShortTermIntegrity(a.pwd).Check(m) != nil {
		return nil
	}
	return m
}

// in translates an authentic request for the agent. Without an agent yet, it reports that and tells
// that the endpoint has taken the restart.
func (a *alias) in(m *stun.Message) (b []byte, agent string, ready bool) {
	name, _ := m.Get(stun.AttrUsername)
	_, theirs, _ := strings.Cut(string(name), ":")
	l := a.link
	l.mu.Lock()
	if l.pending == a {
		l.seen = theirs
		l.mu.Unlock()
		a.take()
		return nil, "", false
	}
	if a == l.current {
		l.seen = theirs
	}
	agent, pwd, called := l.agent.ufrag, l.agent.pwd, l.theirs
	l.mu.Unlock()
	return sign(m, agent+":"+called, pwd), agent, true
}

func (a *alias) take() {
	if a.used.CompareAndSwap(false, true) {
		a.taken()
	}
}

// keep keeps a request until the agent is there.
func (l *link) keep(w waiting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil && len(l.waiting) < maxWaiting {
		w.b = bytes.Clone(w.b)
		l.waiting = append(l.waiting, w)
	}
}

// out translates what the agent sends to where a's requests come from; nil: it is not to be sent.
// Without an alias it is for the one in force.
func (l *link) out(a *alias, b []byte) []byte {
	m := parse(b)
	if m == nil {
		return b
	}
	l.mu.Lock()
	if a == nil {
		a = l.current
	}
	pwd := l.pwd
	l.mu.Unlock()
	switch {
	case a == nil:
		return b
	case m.Type.Class != stun.ClassRequest:
		return sign(m, "", a.pwd)
	case pwd == "":
		return nil
	}
	name, _ := m.Get(stun.AttrUsername)
	theirs, _, _ := strings.Cut(string(name), ":")
	return sign(m, theirs+":"+a.ufrag, pwd)
}

// dress puts an alias's credentials in the place of the agent's, in a description or a candidate.
func (l *link) dress(text string, a *alias) string {
	if a == nil {
		return text
	}
	l.mu.Lock()
	agent := l.agent
	l.mu.Unlock()
	return strings.NewReplacer(agent.ufrag, a.ufrag, agent.pwd, a.pwd).Replace(text)
}

// awaitReady waits until the agent is there, for a bounded time.
func (l *link) awaitReady() error {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	t := time.NewTimer(agentTime)
	defer t.Stop()
	select {
	case <-ready:
		return nil
	case <-t.C:
		return fmt.Errorf("wait for the agent: %v have passed", agentTime)
	}
}
