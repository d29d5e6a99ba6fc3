package engine

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/sdp/v3"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"
)

// A Check is an authentic connectivity check of the endpoint, or a renewal of its consent.
type Check struct {
	From      netip.AddrPort
	Selected  bool // it came on the selected pair
	Nominates bool // it asks for its pair

	raw   []byte
	local string             // address of ours
	pair  *ice.CandidatePair // nil: whoever sent it is where it came from, as far as can be known
}

// Verified reports whether whoever is at the check's address has answered a check of ours by now. A
// datagram may name any source: media that follows one that is not verified can be led to a third party
// (RFC 8445 section 19.5.1). It is always so over TCP, and for agents that are lite, which ask nobody.
func (c Check) Verified() bool { return c.pair == nil || c.pair.ResponsesReceived() > 0 }

// OnCheck makes f be called for each check, by the agent: f must not block. If it returns true the
// pair of the check is selected.
func (p *Peer) OnCheck(f func(Check) bool) { p.onCheck.Store(&f) }

// checked is the agent's hook.
func (p *Peer) checked(m *stun.Message, local, remote ice.Candidate, on *ice.CandidatePair) bool {
	f, pair := p.onCheck.Load(), p.selected.Load()
	if p.lite || !local.NetworkType().IsUDP() {
		on = nil
	}
	if p.reselect.Load() {
		return Check{pair: on}.Verified()
	}
	if f == nil || pair == nil {
		return false
	}
	addr, err := netip.ParseAddr(remote.Address())
	if err != nil {
		return false
	}
	c := Check{
		From: netip.AddrPortFrom(addr.Unmap(), uint16(remote.Port())), Nominates: m.Contains(stun.AttrUseCandidate), pair: on,
		Selected: remote.Port() == int(pair.Remote.Port) && remote.Address() == pair.Remote.Address &&
			local.Address() == pair.Local.Address && local.NetworkType().IsUDP() == (pair.Local.Protocol == webrtc.ICEProtocolUDP),
	}
	if !c.Selected && local.NetworkType().IsUDP() {
		c.raw, c.local = bytes.Clone(m.Raw), local.Address()
	}
	return (*f)(c)
}

// Again hands a check on UDP to the agent once more, so that what OnCheck was given is asked again.
func (p *Peer) Again(c Check) {
	params, err := p.localParameters()
	if err != nil || c.raw == nil {
		return
	}
	for _, m := range p.muxes {
		if u := m.find([]byte(params.UsernameFragment), c.From); u != nil && m.at(c.local) {
			u.push(c.raw, c.From)
		}
	}
}

func (p *Peer) localParameters() (webrtc.ICEParameters, error) {
	params, err := p.SCTP().Transport().ICETransport().GetLocalParameters()
	if err != nil {
		return params, fmt.Errorf("parameters of ice: %w", err)
	}
	return params, nil
}

// awaitGathered waits until the agent gathers no more, as it must before it is restarted: it reads what
// a restart replaces.
func (p *Peer) awaitGathered() error {
	if p.ICEGatheringState() != webrtc.ICEGatheringStateGathering {
		return nil
	}
	select {
	case <-webrtc.GatheringCompletePromise(p.PeerConnection):
		return nil
	case <-time.After(restartTime):
		return errGathering
	}
}

// OfferRestart makes the next offers restart ICE (RFC 8445 section 9). Nothing else changes for now:
// the agent and its path stay as they are until taken is called, from any goroutine, because the
// endpoint has sent an authentic request with the new credentials. Then Restart is to be called;
// ApplyAnswer does it otherwise. Called again before that, it makes new credentials.
func (p *Peer) OfferRestart(taken func()) error {
	params, err := p.localParameters()
	if err != nil {
		return err
	}
	if p.link == nil {
		p.link = &link{agent: credentials{params.UsernameFragment, params.Password}}
	}
	l := p.link
	a := &alias{credentials: newCredentials(), link: l, taken: taken}
	l.mu.Lock()
	var gone []*alias
	if old := l.pending; old != nil {
		gone = l.retireLocked(old) // the endpoint may still take it
	} else {
		l.ready = make(chan struct{})
	}
	l.pending, l.offered, l.waiting = a, true, nil
	l.mu.Unlock()
	p.aliases.remove(gone...)
	p.aliases.add(a)
	return nil
}

// retireLocked makes a one of the former aliases, and returns those that are too many.
func (l *link) retireLocked(a *alias) (gone []*alias) {
	l.former = append(l.former, a)
	if n := len(l.former) - (maxAliases - 2); n > 0 {
		gone = slices.Clone(l.former[:n])
		l.former = slices.Delete(l.former, 0, n)
	}
	return gone
}

// Restarting reports whether the next offer restarts ICE.
func (p *Peer) Restarting() bool {
	if p.link == nil {
		return false
	}
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	return p.link.pending != nil && p.link.offered
}

// CancelRestart takes the restart out of offers to come. The endpoint may still take it.
func (p *Peer) CancelRestart() {
	if p.link != nil {
		p.link.mu.Lock()
		defer p.link.mu.Unlock()
		p.link.offered = false
	}
}

// Restart restarts the agent, now that the endpoint does so. What it was reached by before is still an
// alias, for the endpoint that goes back to it.
func (p *Peer) Restart() error {
	l := p.link
	if l == nil {
		return nil
	}
	l.mu.Lock()
	wanted := l.pending != nil
	l.mu.Unlock()
	if !wanted {
		return nil
	}
	if err := p.awaitGathered(); err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(p.PeerConnection)
	made, err := p.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		return fmt.Errorf("restart ice: %w", err)
	}
	if p.offer != nil {
		p.offer.pion = made // pion applies no offer but the last it made
	}
	// Else a request could find an agent that does not listen yet.
	select {
	case <-gathered:
	case <-time.After(gatherTime):
	}
	params, err := p.localParameters()
	if err != nil {
		return err
	}
	l.mu.Lock()
	before := l.current
	own := before == nil
	if own { // it went by the agent's own name
		before = &alias{credentials: l.agent, link: l, taken: func() {}}
	}
	gone := l.retireLocked(before)
	old := l.agent.ufrag
	l.agent = credentials{params.UsernameFragment, params.Password}
	l.theirs, l.pwd = "", ""
	l.current, l.pending, l.offered = l.pending, nil, false
	kept := l.waiting
	l.waiting = nil
	close(l.ready)
	l.mu.Unlock()
	if own {
		p.aliases.add(before)
	}
	p.aliases.remove(gone...)
	p.aliases.rename(l, old, params.UsernameFragment)
	for _, w := range kept {
		w.mux.deliver(w.b, w.from)
	}
	return nil
}

// named notes how the agent calls the endpoint, from an answer that was applied.
func (p *Peer) named(theirs *sdp.SessionDescription) {
	if p.link == nil {
		return
	}
	ufrag, pwd := iceCredentials(theirs)
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.theirs, l.pwd = ufrag, pwd
	if l.current != nil {
		l.seen = ufrag
	}
}

// isRestart reports whether an offer of the endpoint restarts ICE, as far as it knows.
func (p *Peer) isRestart(theirs *sdp.SessionDescription) bool {
	if p.link == nil {
		return true
	}
	ufrag, _ := iceCredentials(theirs)
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	return p.link.seen != ufrag
}

// Restarted reports whether the latest offer of the endpoint, unless it was the first, has restarted
// ICE.
func (p *Peer) Restarted() bool { return p.restarted }

// followAgent brings the aliases in line with the agent, which may have been restarted by an offer of
// the endpoint. If that was what the endpoint wanted, it is told the agent's own credentials, and
// all aliases end. Else it knows nothing of it.
//
// It reads descriptions and does not ask pion, which may be starting ICE.
func (p *Peer) followAgent(wanted bool, ours, theirs *sdp.SessionDescription) {
	ufrag, pwd := iceCredentials(ours)
	agent := p.ufrag
	if p.link != nil {
		p.link.mu.Lock()
		agent = p.link.agent.ufrag
		p.link.mu.Unlock()
	}
	p.restarted = agent != "" && agent != ufrag && wanted
	p.ufrag = ufrag
	if p.link == nil || agent == ufrag {
		return
	}
	if wanted {
		p.forgetAliases()
		return
	}
	l := p.link
	l.mu.Lock()
	l.agent = credentials{ufrag, pwd}
	l.theirs, l.pwd = iceCredentials(theirs)
	l.mu.Unlock()
	p.aliases.rename(l, agent, ufrag)
	p.reselect.Store(true)
}

// forgetAliases ends all aliases.
func (p *Peer) forgetAliases() {
	l := p.link
	if l == nil {
		return
	}
	p.link = nil
	l.mu.Lock()
	all := append([]*alias{l.current, l.pending}, l.former...)
	if l.pending != nil {
		close(l.ready)
	}
	l.current, l.pending, l.former, l.waiting = nil, nil, nil, nil
	agent := l.agent.ufrag
	l.mu.Unlock()
	p.aliases.remove(all...)
	p.aliases.rename(l, agent, "")
}

// GracefulClose ends the peer and all that it goes by.
func (p *Peer) GracefulClose() error {
	p.forgetAliases()
	return p.PeerConnection.GracefulClose()
}

// dress puts what the endpoint is to know in the place of the agent's credentials.
func (p *Peer) dress(text string, offer bool) string {
	l := p.link
	if l == nil {
		return text
	}
	l.mu.Lock()
	a := l.current
	if offer && l.pending != nil && l.offered {
		a = l.pending
	}
	l.mu.Unlock()
	return l.dress(text, a)
}

// iceCredentials returns those of a description, of its session or of its first section that has some.
func iceCredentials(d *sdp.SessionDescription) (ufrag, pwd string) {
	ufrag, _ = d.Attribute("ice-ufrag")
	pwd, _ = d.Attribute("ice-pwd")
	for _, m := range d.MediaDescriptions {
		if ufrag == "" {
			ufrag, _ = m.Attribute("ice-ufrag")
			pwd, _ = m.Attribute("ice-pwd")
		}
	}
	return ufrag, pwd
}
