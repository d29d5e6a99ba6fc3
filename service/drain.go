package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"rtcd/service/api"
	"rtcd/service/audit"
)

// Times of the end of a server.
const (
	// stopTime bounds how long peers may take for what they have begun, once the last call has ended.
	stopTime = 10 * time.Second
	// cutTime is the same when the deadline of a drain ends the calls, or a listener fails.
	cutTime = 3 * time.Second
	// haltTime is the same after Halt.
	haltTime = 700 * time.Millisecond
	// closeTime is how much more the parts get to close, who wait for nobody else. Whatever hangs
	// then is left behind.
	closeTime = time.Second
)

// errStuck is the error of a server that has not ended in time.
var errStuck = errors.New("parts of the server did not end in time and were left behind")

// reasonStopping is why a drain cannot be changed any more.
const reasonStopping = "shutting_down"

// A drainer knows whether the server takes new calls, and when it is to end. Operators and signals
// tell it; Server.Run waits for it. Its mu is held while it tells the calls, so that these are always
// as it says; they never call it.
type drainer struct {
	calls *fleet
	load  *api.Load
	log   *slog.Logger
	limit time.Duration   // deadline of a drain that nobody gave one; 0: none
	audit *audit.Recorder // nil: none

	mu       sync.Mutex
	active   bool
	exit     bool // and the server ends
	signal   bool
	stopping bool            // it is ending: nothing changes any more
	cut      bool            // the deadline has come, and the server stays
	deadline time.Time       // zero: none
	idle     <-chan struct{} // of the present drain; closed once there are no calls
	changed  chan struct{}   // closed and made anew at each change
	halt     chan struct{}   // closed by Halt
}

func newDrainer(calls *fleet, load *api.Load, limit time.Duration, r *audit.Recorder, log *slog.Logger) *drainer {
	return &drainer{
		calls: calls, load: load, limit: limit, audit: r, log: log, changed: make(chan struct{}), halt: make(chan struct{}),
	}
}

// record keeps what was done by nobody's request.
func (d *drainer) record(kind, reason string) {
	if d.audit != nil {
		d.audit.Record(audit.Event{Actor: audit.Actor{Kind: audit.Server}, Type: kind, Action: audit.Execute, Reason: reason})
	}
}

// DrainState implements api.Drainer.
func (d *drainer) DrainState() api.DrainState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stateLocked()
}

func (d *drainer) stateLocked() api.DrainState {
	st := api.DrainState{Draining: d.active, Exit: d.exit, Signal: d.signal, Deadline: d.deadline}
	st.Sessions, st.Calls = d.calls.Load()
	return st
}

func (d *drainer) refusedLocked() error {
	if d.stopping {
		return api.Refuse(http.StatusConflict, reasonStopping, errors.New("the server is ending"))
	}
	return nil
}

// Drain implements api.Drainer.
func (d *drainer) Drain(r api.DrainRequest) (api.DrainState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusedLocked(); err != nil {
		return api.DrainState{}, err
	}
	if r.Exit != nil && !*r.Exit && d.active && d.exit {
		return api.DrainState{}, api.Refuse(http.StatusConflict, reasonStopping,
			errors.New("the server ends when it has drained; take the drain back first"))
	}
	limit := r.Deadline
	if limit == nil && !d.active {
		limit = &d.limit
	}
	exit := d.exit
	switch {
	case r.Exit != nil:
		exit = *r.Exit
	case !d.active:
		exit = true
	}
	d.beginLocked(limit, exit)
	return d.stateLocked(), nil
}

// bySignal drains and ends the server. Calls have as long as configured, and no longer than they had.
func (d *drainer) bySignal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	limit := &d.limit
	if was := d.deadline; d.active && !was.IsZero() && (d.limit == 0 || time.Until(was) < d.limit) {
		limit = nil
	}
	d.signal = true
	d.record("drain.start", "signal")
	d.beginLocked(limit, true)
}

// beginLocked refuses new calls; a deadline of nil leaves it as it is.
func (d *drainer) beginLocked(limit *time.Duration, exit bool) {
	if limit != nil {
		d.deadline = time.Time{}
		if *limit > 0 {
			d.deadline = time.Now().Add(*limit)
		}
		d.cut = false
	}
	d.active, d.exit = true, exit
	d.load.Refuse(true) // first: who is refused is not to have read a low load after that
	d.idle = d.calls.Drain()
	d.changedLocked()
	sessions, calls := d.calls.Load()
	attrs := []any{"sessions", sessions, "calls", calls, "exit", exit}
	if !d.deadline.IsZero() {
		attrs = append(attrs, "deadline", time.Until(d.deadline).Round(time.Second/10))
	}
	d.log.Info("draining", attrs...)
}

// Undrain implements api.Drainer.
func (d *drainer) Undrain() (api.DrainState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusedLocked(); err != nil {
		return api.DrainState{}, err
	}
	if d.signal {
		return api.DrainState{}, api.Refuse(http.StatusConflict, reasonStopping, errors.New("the server was told to end by a signal"))
	}
	if d.active {
		d.active, d.exit, d.cut, d.deadline = false, false, false, time.Time{}
		d.calls.Undrain()
		d.load.Refuse(false)
		d.changedLocked()
		d.log.Info("new calls are taken again")
	}
	return d.stateLocked(), nil
}

func (d *drainer) changedLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Halt makes wait return at once, and what it is waited for after that be short.
func (d *drainer) Halt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.halt:
	default:
		close(d.halt)
	}
}

// stop ends all changes and returns how long peers have for what they have begun. New calls are
// refused from now on.
func (d *drainer) stop(patience time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
	d.load.Refuse(true)
	d.calls.Drain()
	select {
	case <-d.halt:
		return haltTime
	default:
		return patience
	}
}

// wait returns when the server has to end: because of an error, or because it has drained. Peers then
// have so long for what they have begun.
func (d *drainer) wait(ctx context.Context, failed <-chan error) (patience time.Duration, err error) {
	signalled := ctx.Done()
	for {
		d.mu.Lock()
		changed, deadline, cut := d.changed, d.deadline, d.cut
		active, idle := d.active, d.idle
		if !active || !d.exit {
			idle = nil
		}
		d.mu.Unlock()
		var due <-chan time.Time
		var timer *time.Timer
		if active && !cut && !deadline.IsZero() {
			timer = time.NewTimer(time.Until(deadline))
			due = timer.C
		}
		select {
		case err := <-failed:
			return cutTime, err
		case <-d.halt:
			return haltTime, nil
		case <-signalled:
			signalled = nil
			d.bySignal()
		case <-changed:
		case <-idle:
			if d.commit(changed) {
				return stopTime, nil
			}
		case <-due:
			if d.expire(changed) {
				return cutTime, nil
			}
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// commit makes the end of the server final, unless something has changed meanwhile.
func (d *drainer) commit(changed <-chan struct{}) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = d.changed == changed
	return d.stopping
}

// expire does what is due at the deadline, unless something has changed meanwhile: the server ends,
// or its calls.
func (d *drainer) expire(changed <-chan struct{}) (exit bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed != changed {
		return false
	}
	sessions, _ := d.calls.Load()
	d.log.Warn("drain deadline reached", "sessions", sessions)
	d.record("drain.deadline", "")
	if d.exit {
		d.stopping = true
		return true
	}
	d.cut = true
	d.calls.EndAll()
	return false
}
