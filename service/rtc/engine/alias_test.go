package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

// signed is a check by user name, signed with a password.
func signed(t *testing.T, name, pwd string, more ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append(append([]stun.Setter{stun.BindingRequest, stun.TransactionID, stun.NewUsername(name)}, more...),
		stun.NewShortTermIntegrity(pwd), stun.Fingerprint)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// restarted is an agent on a socket, and an alias of it that is offered.
func restarted(t *testing.T) (m *udpMux, agent *udpConn, a *alias, taken *int) {
	t.Helper()

	m, err := newUDPMux(newFakeSocket(), newAliases())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	conn, err := m.GetConn("agentagent", nil)
	if err != nil {
		t.Fatal(err)
	}
	taken = new(int)
	l := &link{agent: credentials{"agentagent", "agentpassword"}, theirs: "them", ready: make(chan struct{})}
	a = &alias{credentials: newCredentials(), link: l, taken: func() { *taken++ }}
	l.pending, l.offered = a, true
	m.aliases.add(a)
	return m, conn.(*udpConn), a, taken
}

// inForce makes the alias the one that the agent is reached by.
func inForce(m *udpMux, a *alias) {
	l := a.link
	l.mu.Lock()
	l.current, l.pending = a, nil
	close(l.ready)
	l.mu.Unlock()
	m.aliases.rename(l, "", "agentagent")
}

var from = netip.MustParseAddrPort("192.0.2.7:4000")

// F21, S11: who does not know the password changes nothing, and costs nothing that stays.
func TestAliasNeedsThePassword(t *testing.T) {
	m, agent, a, taken := restarted(t)
	for range 10_000 {
		m.deliver(signed(t, a.ufrag+":them", "wrong"), from)
	}
	if *taken != 0 || len(a.link.waiting) != 0 || agent.queued != 0 || len(agent.via) != 0 {
		t.Errorf("taken %d, waiting %d, queued %d", *taken, len(a.link.waiting), agent.queued)
	}
	inForce(m, a)
	for range 1000 {
		m.deliver(signed(t, a.ufrag+":them", "wrong"), from)
		m.deliver(signed(t, a.ufrag+":them", "agentpassword"), from)
	}
	if agent.queued != 0 || len(agent.via) != 0 {
		t.Errorf("queued %d of wrong passwords", agent.queued)
	}
}

// What comes before the agent is there waits, within bounds, and is told of once.
func TestAliasBeforeItsAgent(t *testing.T) {
	m, agent, a, taken := restarted(t)
	for range 100 {
		m.deliver(signed(t, a.ufrag+":new", a.pwd), from)
	}
	if *taken != 1 || len(a.link.waiting) != maxWaiting || agent.queued != 0 {
		t.Errorf("taken %d, waiting %d, queued %d", *taken, len(a.link.waiting), agent.queued)
	}
	if a.link.seen != "new" {
		t.Errorf("endpoint is %q", a.link.seen)
	}
}

// Requests and responses are translated both ways, and nothing else is changed.
func TestAliasTranslates(t *testing.T) {
	m, agent, a, _ := restarted(t)
	inForce(m, a)
	m.deliver(signed(t, a.ufrag+":new", a.pwd, stun.RawAttribute{Type: stun.AttrUseCandidate}), from)
	b := make([]byte, maxDatagram)
	n, addr, err := agent.ReadFromAddrPort(b)
	if err != nil || addr != from {
		t.Fatal(addr, err)
	}
	got := parse(b[:n])
	var name stun.Username
	if got == nil || name.GetFrom(got) != nil || name.String() != "agentagent:them" ||
		stun.NewShortTermIntegrity("agentpassword").Check(got) != nil || stun.Fingerprint.Check(got) != nil ||
		!got.Contains(stun.AttrUseCandidate) {
		t.Fatalf("the agent gets %v", got)
	}
	response, err := stun.Build(got, stun.BindingSuccess, stun.NewShortTermIntegrity("agentpassword"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	out := parse(agent.translated(response.Raw, from))
	if out == nil || out.TransactionID != got.TransactionID || stun.NewShortTermIntegrity(a.pwd).Check(out) != nil {
		t.Errorf("the endpoint gets %v", out)
	}
	// A request of the agent's, which needs the endpoint's password.
	ask := signed(t, "new:agentagent", "whatever")
	if agent.translated(ask, from) != nil {
		t.Error("a request goes out unsigned")
	}
	a.link.pwd = "theirpassword"
	out = parse(agent.translated(ask, from))
	if out == nil || name.GetFrom(out) != nil || name.String() != "new:"+a.ufrag || stun.NewShortTermIntegrity("theirpassword").Check(out) != nil {
		t.Errorf("the endpoint is asked %v", out)
	}
	// DTLS passes as it is.
	if dtls := []byte{22, 0xfe, 0xfd, 0, 0}; string(agent.translated(dtls, from)) != string(dtls) {
		t.Error("changed")
	}
	if text := a.link.dress("a=ice-ufrag:agentagent\r\na=ice-pwd:agentpassword\r\n", a); strings.Contains(text, "agent") {
		t.Errorf("told %q", text)
	}
}
