package audit

import "time"

const (
	// paceShare is the part of the queue, 1 of so many, that one actor fills at most if it waits.
	paceShare = 8
	// paceTime is how long it waits at most for one event.
	paceTime = 250 * time.Millisecond
)

// Pace waits while too many events of an actor, or of all together, wait to be written: whoever makes
// events faster than a disk takes them is slowed down, and neither his own nor those of others are lost.
// It waits a moment at most, and not for a disk that fails.
func (r *Recorder) Pace(actor Actor) {
	if r == nil {
		return
	}
	var late <-chan time.Time
	for {
		r.mu.Lock()
		over := r.failing == nil && (r.waiting[actor] > r.queue/paceShare || len(r.pending) > r.queue/2)
		changed := r.changed
		r.mu.Unlock()
		if !over {
			return
		}
		if late == nil {
			timer := time.NewTimer(paceTime)
			defer timer.Stop()
			late = timer.C
		}
		poke(r.soon)
		select {
		case <-changed:
		case <-r.closed:
			return
		case <-late:
			return
		}
	}
}

// uncount takes events off what their actors wait for. mu is held.
func (r *Recorder) uncount(events []Event) {
	for i := range events {
		a := events[i].Actor
		if r.waiting[a]--; r.waiting[a] == 0 {
			delete(r.waiting, a)
		}
	}
}
