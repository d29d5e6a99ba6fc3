package service

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/handover"
	"rtcd/service/rtc"
	"rtcd/service/rtc/netio"
)

// A fleet is all calls that this process is in front of: its own, and those that former processes
// still have after upgrades. Whatever names a session or a call goes to the process that has it; what
// is new begins here.
type fleet struct {
	*rtc.Server
	log *slog.Logger
	out *outlet // of its own calls, and of those of the others

	keep func(keptCall) // takes what is known of calls that others have ended; nil: nothing is kept

	mu       sync.Mutex
	formers  []*former // the latest first
	sessions map[sessionKey]elsewhere
	calls    map[rtc.CallKey]*former
	closed   chan struct{} // by Close

	watching sync.WaitGroup
}

// elsewhere is a session that a former process has.
type elsewhere struct {
	*former
	call string
}

type sessionKey struct{ group, session string }

// A former is a process that was in front before.
type former struct {
	name    string
	link    *handover.Link
	settled chan struct{} // closed once it has told what it kept during the handover
	gone    chan struct{} // closed once it has ended and its sessions are out of the tables
}

func newFleet(calls *rtc.Server, out *outlet, log *slog.Logger) *fleet {
	return &fleet{
		Server: calls, log: log, out: out, closed: make(chan struct{}),
		sessions: make(map[sessionKey]elsewhere), calls: make(map[rtc.CallKey]*former),
	}
}

// add makes the calls of a former process part of the fleet.
func (f *fleet) add(st formerState, c *handover.Conn) *former {
	o := &former{name: st.Name, settled: make(chan struct{}), gone: make(chan struct{})}
	f.mu.Lock()
	f.formers = append(f.formers, o)
	for _, s := range st.Sessions {
		f.sessions[sessionKey{s.GroupID, s.SessionID}] = elsewhere{o, s.CallID}
	}
	for _, k := range st.Calls {
		f.calls[k] = o
	}
	f.mu.Unlock()
	o.link = handover.NewLink(c, func(l *handover.Link, fr handover.Frame) { f.take(o, l, fr) })
	f.watching.Go(func() { f.watch(o) })
	return o
}

// take takes what a former process tells.
func (f *fleet) take(o *former, l *handover.Link, fr handover.Frame) {
	var err error
	switch fr.Kind {
	case frameEmit:
		var e rtc.Event
		if err = json.Unmarshal(fr.Body, &e); err == nil {
			f.out.tell(func(a *audience) {
				a.emit(e)
				if e.Kind == rtc.Closed {
					f.forgetSession(o, sessionKey{e.GroupID, e.SessionID})
				}
			})
		}
	case frameEnded:
		var k rtc.CallKey
		if err = json.Unmarshal(fr.Body, &k); err == nil {
			f.out.tell(func(a *audience) {
				a.ended(k)
				f.forgetCall(o, k)
			})
		}
	case frameChanged:
		var c changedCall
		if err = json.Unmarshal(fr.Body, &c); err == nil {
			f.out.tell(func(a *audience) { a.changed(c.Group, c.Call) })
		}
	case frameEvent:
		var e rtc.CallEvent
		if err = json.Unmarshal(fr.Body, &e); err == nil {
			f.out.tell(func(a *audience) { a.event(e) })
		}
	case frameStray:
		var d netio.Stray
		if err = json.Unmarshal(fr.Body, &d); err == nil {
			f.Inject(d)
		}
	case frameRecord:
		err = f.takeRecord(l, fr)
	case frameSettled:
		select {
		case <-o.settled:
		default:
			close(o.settled)
		}
	}
	if err != nil {
		f.log.Error("a former process says what cannot be understood", "process", o.name, "kind", fr.Kind, "err", err)
	}
}

// watch notes the end of a former process. Sessions that it has not ended itself have ended with it.
func (f *fleet) watch(o *former) {
	defer close(o.gone)
	<-o.link.Done()
	if o.link.Held() {
		return
	}
	_ = o.link.Close()
	f.mu.Lock()
	f.formers = slices.DeleteFunc(f.formers, func(x *former) bool { return x == o })
	left := f.stateLocked(o)
	f.mu.Unlock()
	for _, s := range left.Sessions {
		f.out.tell(func(a *audience) {
			a.emit(rtc.Event{
				Kind: rtc.Closed, GroupID: s.GroupID, CallID: s.CallID, SessionID: s.SessionID, Reason: rtc.CloseInternal,
			})
			f.forgetSession(o, sessionKey{s.GroupID, s.SessionID})
		})
	}
	for _, k := range left.Calls {
		f.out.tell(func(a *audience) {
			a.event(rtc.CallEvent{Type: rtc.CallEnded, Time: time.Now(), GroupID: k.GroupID, CallID: k.CallID})
			a.ended(k)
			f.forgetCall(o, k)
		})
	}
	if n := len(left.Sessions); n > 0 {
		f.log.Error("a former process has died with its sessions", "process", o.name, "sessions", n)
	} else {
		f.log.Info("a former process has ended", "process", o.name)
	}
	f.alone()
}

// alone makes media need no sockets for its paths any more, if no former process is left.
func (f *fleet) alone() {
	if len(f.all()) > 0 {
		return
	}
	if err := f.Succeed(false); err != nil {
		f.log.Warn("media sockets", "err", err)
	}
}

func (f *fleet) forgetSession(o *former, k sessionKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sessions[k].former == o {
		delete(f.sessions, k)
	}
}

func (f *fleet) forgetCall(o *former, k rtc.CallKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[k] == o {
		delete(f.calls, k)
	}
}

// ofSession returns the former process that has a session, nil if none.
func (f *fleet) ofSession(group, session string) *former {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[sessionKey{group, session}].former
}

// ofCall returns the former process that has a call, nil if none.
func (f *fleet) ofCall(group, call string) *former {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[rtc.CallKey{GroupID: group, CallID: call}]
}

func (f *fleet) all() []*former {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.formers)
}

// JoinAs is that of rtc.Server: in the process that has the call.
func (f *fleet) JoinAs(group string, j wire.Join, g rtc.Grant) error {
	o := f.ofSession(group, j.SessionID)
	if o == nil && !f.Server.Exists(group, j.SessionID) {
		o = f.ofCall(group, j.CallID)
	}
	if o == nil {
		return f.Server.JoinAs(group, j, g)
	}
	// It is in the table before it can end.
	k := sessionKey{group, j.SessionID}
	f.mu.Lock()
	_, known := f.sessions[k]
	if !known {
		f.sessions[k] = elsewhere{o, j.CallID}
	}
	f.mu.Unlock()
	_, err := ask(o.link, order{Verb: orderJoin, Group: group, Join: &j, Grant: &g})
	if err == nil {
		return nil
	}
	if !known {
		f.forgetSession(o, k)
	}
	if errors.Is(err, rtc.ErrDraining) || errors.Is(err, handover.ErrGone) {
		// The call is over there, or will be as soon as that is noticed.
		return f.Server.JoinAs(group, j, g)
	}
	return err
}

// Leave is that of rtc.Server.
func (f *fleet) Leave(group, session string) {
	if o := f.ofSession(group, session); o != nil {
		o.link.Post(frameOrder, encode(order{Verb: orderLeave, Group: group, Session: session}))
		return
	}
	f.Server.Leave(group, session)
}

// Signal is that of rtc.Server. What becomes of a message to another process is not waited for.
func (f *fleet) Signal(group, session string, s wire.Signal) error {
	if o := f.ofSession(group, session); o != nil {
		o.link.Post(frameOrder, encode(order{Verb: orderSignal, Group: group, Session: session, Signal: &s}))
		return nil
	}
	return f.Server.Signal(group, session, s)
}

// Exists is that of rtc.Server.
func (f *fleet) Exists(group, session string) bool {
	return f.ofSession(group, session) != nil || f.Server.Exists(group, session)
}

// moderated gives an order to the process that has a call, and reports whether it is another one.
func (f *fleet) moderated(o order) (elsewhere bool, err error) {
	owner := f.ofCall(o.Group, o.Call)
	if owner == nil {
		return false, nil
	}
	_, err = ask(owner.link, o)
	return true, err
}

// Disconnect is that of rtc.Server.
func (f *fleet) Disconnect(group, call, session string) error {
	if ok, err := f.moderated(order{Verb: orderDisconnect, Group: group, Call: call, Session: session}); ok {
		return err
	}
	return f.Server.Disconnect(group, call, session)
}

// Unpublish is that of rtc.Server.
func (f *fleet) Unpublish(group, call, stream string, untilCallEnd bool) error {
	if ok, err := f.moderated(order{Verb: orderUnpublish, Group: group, Call: call, Stream: stream, Until: untilCallEnd}); ok {
		return err
	}
	return f.Server.Unpublish(group, call, stream, untilCallEnd)
}

// Mute is that of rtc.Server.
func (f *fleet) Mute(group, call, session string) error {
	if ok, err := f.moderated(order{Verb: orderMute, Group: group, Call: call, Session: session}); ok {
		return err
	}
	return f.Server.Mute(group, call, session)
}

// MuteAll is that of rtc.Server.
func (f *fleet) MuteAll(group, call string, except []string) error {
	if ok, err := f.moderated(order{Verb: orderMuteAll, Group: group, Call: call, Except: except}); ok {
		return err
	}
	return f.Server.MuteAll(group, call, except)
}

// SetMuteState is that of rtc.Server.
func (f *fleet) SetMuteState(group, call string, active bool, except []string) error {
	if ok, err := f.moderated(order{Verb: orderSetMuteState, Group: group, Call: call, Active: active, Except: except}); ok {
		return err
	}
	return f.Server.SetMuteState(group, call, active, except)
}

// EndCall is that of rtc.Server.
func (f *fleet) EndCall(group, call string) error {
	if ok, err := f.moderated(order{Verb: orderEndCall, Group: group, Call: call}); ok {
		return err
	}
	return f.Server.EndCall(group, call)
}

// EndOrphans is that of rtc.Server. To former processes their sessions have left.
func (f *fleet) EndOrphans(group string) {
	f.mu.Lock()
	var there []string
	for k := range f.sessions {
		if k.group == group {
			there = append(there, k.session)
		}
	}
	f.mu.Unlock()
	for _, session := range there {
		f.Leave(group, session)
	}
	f.Server.EndOrphans(group)
}

// EndGroup is that of rtc.Server.
func (f *fleet) EndGroup(group string) {
	for _, o := range f.all() {
		_, _ = ask(o.link, order{Verb: orderEndGroup, Group: group})
	}
	f.Server.EndGroup(group)
}

// Sessions is that of rtc.Server.
func (f *fleet) Sessions(group, call string) ([]rtc.SessionInfo, bool) {
	if o := f.ofCall(group, call); o != nil {
		if out, err := ask(o.link, order{Verb: orderSessions, Group: group, Call: call}); err == nil && out.Known {
			return out.Sessions, true
		}
	}
	return f.Server.Sessions(group, call)
}

// Call is that of rtc.Server.
func (f *fleet) Call(group, call string) (rtc.CallInfo, bool) {
	if o := f.ofCall(group, call); o != nil {
		if out, err := ask(o.link, order{Verb: orderCall, Group: group, Call: call}); err == nil && out.Known && len(out.Calls) == 1 {
			return out.Calls[0], true
		}
	}
	return f.Server.Call(group, call)
}

// Calls is that of rtc.Server.
func (f *fleet) Calls(group string) []rtc.CallInfo {
	list := f.Server.Calls(group)
	for _, o := range f.all() {
		if out, err := ask(o.link, order{Verb: orderCalls, Group: group}); err == nil {
			list = append(list, out.Calls...)
		}
	}
	return list
}

// Load is that of rtc.Server, of all processes together.
func (f *fleet) Load() (sessions, calls int) {
	sessions, calls = f.Server.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	return sessions + len(f.sessions), calls + len(f.calls)
}

// Drain is that of rtc.Server: the channel is closed when all processes are idle.
func (f *fleet) Drain() <-chan struct{} {
	idle := f.Server.Drain()
	others := f.all()
	if len(others) == 0 {
		return idle
	}
	for _, o := range others {
		o.link.Post(frameOrder, encode(order{Verb: orderDrain}))
	}
	all := make(chan struct{})
	go func() {
		for _, c := range append([]<-chan struct{}{idle}, goneOf(others)...) {
			select {
			case <-c:
			case <-f.closed:
				return
			}
		}
		close(all)
	}()
	return all
}

func goneOf(list []*former) (out []<-chan struct{}) {
	for _, o := range list {
		out = append(out, o.gone)
	}
	return out
}

// EndAll is that of rtc.Server.
func (f *fleet) EndAll() {
	var asked sync.WaitGroup
	for _, o := range f.all() {
		asked.Go(func() { _, _ = ask(o.link, order{Verb: orderEndAll}) })
	}
	f.Server.EndAll()
	asked.Wait()
}

// Close ends all calls everywhere, and the other processes.
func (f *fleet) Close() error {
	f.mu.Lock()
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	f.mu.Unlock()
	others := f.all()
	late := time.After(orderTime)
	for _, o := range others {
		o.link.Post(frameOrder, encode(order{Verb: orderEndAll}))
	}
	for _, o := range others {
		select {
		case <-o.gone: // it ends once it is idle
		case <-late:
			o.link.Abort()
			<-o.gone
		}
	}
	f.watching.Wait()
	return f.Server.Close()
}

// holdFormers takes the links to the former processes out of the fleet, which is to be used no more,
// and makes those wait for a next one. One that does not answer is given up, and its sessions with it.
func (f *fleet) holdFormers(ctx context.Context) (states []formerState, conns []*handover.Conn) {
	for _, o := range f.all() {
		c, err := o.link.Hold(ctx)
		if err != nil {
			f.log.Error("a former process does not answer", "process", o.name, "err", err)
			continue
		}
		states, conns = append(states, f.stateOf(o)), append(conns, c)
	}
	f.watching.Wait()
	return states, conns
}

func (f *fleet) stateOf(o *former) formerState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stateLocked(o)
}

// stateLocked returns what a former process has.
func (f *fleet) stateLocked(o *former) formerState {
	st := formerState{Name: o.name}
	for k, s := range f.sessions {
		if s.former == o {
			st.Sessions = append(st.Sessions, rtc.SessionInfo{GroupID: k.group, SessionID: k.session, CallID: s.call})
		}
	}
	for k, owner := range f.calls {
		if owner == o {
			st.Calls = append(st.Calls, k)
		}
	}
	return st
}
