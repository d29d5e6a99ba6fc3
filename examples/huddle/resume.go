package main

import "time"

// defaultGrace is long enough for a phone that changes networks, and short enough for those who
// would talk to somebody who is not there.
const defaultGrace = 10 * time.Second

// A link is the WebSocket that serves a participant at the moment.
type link struct {
	cut  func()        // closes it
	done chan struct{} // closed once it serves nobody any more
}

// resume lets a lost browser go on with its session over l, if it knows the token. It returns nil
// if there is no such session (any more). A former WebSocket, which may not know yet that it is
// dead, is closed; what has been queued since goes over the new one.
func (h *hub) resume(token string, l *link) *participant {
	h.mu.Lock()
	p := h.tokens[token]
	if p == nil || p.dropped {
		h.mu.Unlock()
		return nil
	}
	former := p.link
	p.link = l
	p.stay()
	h.mu.Unlock()
	if former != nil {
		former.cut()
		<-former.done
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[p.id] == p { // else the session ended meanwhile, which is in the queue
		h.welcome(p, true)
	}
	return p
}

// detach is called when l has ended. A browser that may come back is waited for, meanwhile its
// call goes on; any other leaves.
func (h *hub) detach(p *participant, l *link, mayComeBack bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[p.id] != p || p.link != l {
		return
	}
	if !mayComeBack || p.dropped {
		h.leave(p)
		return
	}
	p.link = nil
	var timer *time.Timer
	timer = time.AfterFunc(h.grace, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if p.leaving == timer { // else it came back, or is gone
			h.leave(p)
		}
	})
	p.leaving = timer
}

// stay ends the waiting for a browser, with the hub's lock held.
func (p *participant) stay() {
	if p.leaving != nil {
		p.leaving.Stop()
		p.leaving = nil
	}
}
