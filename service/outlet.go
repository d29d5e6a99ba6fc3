package service

import (
	"sync"

	"rtcd/service/rtc"
)

// An audience takes what calls have to say.
type audience struct {
	emit    func(rtc.Event)
	ended   func(rtc.CallKey)
	changed func(group string, info rtc.CallInfo)
	event   func(rtc.CallEvent)
}

// An outlet stands between calls and their audience, which changes when another process takes over.
// Between two audiences it keeps what is said, in its order. Its mu is held while the audience is told:
// an audience must not wait for the calls.
type outlet struct {
	mu     sync.RWMutex
	to     *audience // nil: nobody
	heldMu sync.Mutex
	held   []func(*audience)
}

// tell tells the audience, or whoever will be it.
func (o *outlet) tell(f func(*audience)) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.to != nil {
		f(o.to)
		return
	}
	o.heldMu.Lock()
	o.held = append(o.held, f)
	o.heldMu.Unlock()
}

// hold keeps all that is said from now on. Nobody is being told anything when it returns.
func (o *outlet) hold() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = nil
}

// attach tells a what was kept, and then all that is said.
func (o *outlet) attach(a *audience) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.held {
		f(a)
	}
	o.to, o.held = a, nil
}

// throughOutlet puts an outlet between the calls of a configuration and those it names, who are its
// audience for now.
func throughOutlet(cfg *rtc.Config) *outlet {
	ended := cfg.CallEnded
	o := &outlet{to: &audience{
		emit: cfg.Emit, changed: cfg.CallChanged, event: cfg.CallEvent,
		ended: func(k rtc.CallKey) { ended(k.GroupID, k.CallID) },
	}}
	cfg.Emit = func(e rtc.Event) { o.tell(func(a *audience) { a.emit(e) }) }
	cfg.CallEnded = func(group, call string) {
		o.tell(func(a *audience) { a.ended(rtc.CallKey{GroupID: group, CallID: call}) })
	}
	cfg.CallChanged = func(group string, c rtc.CallInfo) { o.tell(func(a *audience) { a.changed(group, c) }) }
	cfg.CallEvent = func(e rtc.CallEvent) { o.tell(func(a *audience) { a.event(e) }) }
	return o
}
