package audit

import (
	"fmt"
	"slices"
	"time"
)

// run is the loop that writes. It returns how many events it could not write before it had to end.
func (r *Recorder) run() (left int) {
	var (
		timer    = time.NewTimer(0) // of a pause between commits, or after a failure
		retain   = time.NewTicker(retainEvery)
		pause    time.Duration
		waiting  bool // the timer runs
		quit     = r.quit
		quitting bool
	)
	defer timer.Stop()
	defer retain.Stop()
	<-timer.C
	r.retain()
	for {
		wake, soon := r.wake, r.soon
		if waiting {
			wake = nil
		}
		if r.failed() {
			soon = nil // a failing disk is asked again when the timer says so, and at the end
		}
		select {
		case <-wake:
		case <-soon:
		case <-timer.C:
			waiting = false
		case <-retain.C:
			r.retain()
		case <-quit:
			quit, quitting = nil, true
		}
		n, err := r.write()
		switch {
		case err != nil:
			pause = min(max(2*pause, retryFirst), retryMost)
		case n > 0:
			pause = commitEvery
		default:
			pause = 0
		}
		left = r.queued()
		if quitting && (left == 0 || err != nil) {
			return left
		}
		if quitting || left > 0 && err == nil {
			poke(r.soon)
		}
		if !timer.Stop() {
			select {
			case <-timer.C:
			default:
			}
		}
		if waiting = pause > 0; waiting {
			timer.Reset(pause)
		}
	}
}

func (r *Recorder) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failing != nil
}

func (r *Recorder) queued() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

// write commits what waits, up to commitMax events, and returns how many it did.
func (r *Recorder) write() (int, error) {
	r.mu.Lock()
	batch := r.pending[:min(len(r.pending), commitMax)]
	lost, was := r.lost, r.failing
	r.mu.Unlock()
	if len(batch) == 0 && lost == 0 {
		return 0, nil
	}
	// What was lost stands where it was lost: behind what was in the queue then.
	extra := r.afterwards(batch, lost, was)
	n, notes, err := r.journal.append(slices.Concat(batch, extra))
	if n < len(batch)+len(extra) {
		lost = 0
	}
	for _, e := range notes {
		r.Record(e)
	}
	r.committed(min(n, len(batch)), n, lost, err)
	return n, err
}

// afterwards returns the events that tell of a failure once it is over.
func (r *Recorder) afterwards(batch []Event, lost uint64, was error) (extra []Event) {
	if was != nil {
		extra = append(extra, serverEvent("audit.recovered", Success, was.Error()))
	}
	r.mu.Lock()
	all := len(batch) == len(r.pending) || was == nil
	r.mu.Unlock()
	if lost > 0 && all {
		extra = append(extra, serverEvent("audit.dropped", MajorFailure, fmt.Sprintf("%d events", lost)))
	}
	return extra
}

// committed takes n events off the queue, publishes what is new and raises or lifts the alarm.
func (r *Recorder) committed(n, written int, reported uint64, err error) {
	v := r.journal.view()
	r.mu.Lock()
	r.uncount(r.pending[:n])
	r.pending = r.pending[n:]
	if len(r.pending) == 0 {
		r.pending = nil
	}
	r.done += uint64(n)
	r.lost -= reported
	r.stats.Written += uint64(written)
	if err != nil {
		r.stats.Errors++
	}
	was := r.failing
	r.failing = err
	r.view = v
	changed := r.changed
	r.changed = make(chan struct{})
	r.mu.Unlock()
	close(changed)
	switch {
	case err != nil && was == nil:
		r.log.Error("audit log cannot be written", "err", err, "refusing", r.block)
	case err == nil && was != nil:
		r.log.Info("audit log is written again")
	}
}

// retain removes the files that are past their time, after it has put that on record.
func (r *Recorder) retain() {
	e, files := r.journal.expired(time.Now())
	if files == 0 {
		return
	}
	n, notes, err := r.journal.append([]Event{e})
	if err == nil {
		r.journal.remove(files)
	}
	r.committed(0, n, 0, err)
	for _, note := range notes {
		r.Record(note)
	}
}

// committedView returns what is committed, and a channel that closes when that changes.
func (r *Recorder) committedView() (*view, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view, r.changed
}
