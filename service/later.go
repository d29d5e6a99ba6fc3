package service

import (
	"sync"
	"time"
)

// later runs what is due later, or elsewhere than where it was found to be due, unless the server
// stops before.
type later struct {
	mu      sync.Mutex
	pending map[*time.Timer]struct{}
	stopped bool
	running sync.WaitGroup
}

// after runs f after d.
func (l *later) after(d time.Duration, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	if l.pending == nil {
		l.pending = make(map[*time.Timer]struct{})
	}
	l.running.Add(1)
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		defer l.running.Done()
		l.mu.Lock()
		delete(l.pending, timer)
		l.mu.Unlock()
		f()
	})
	l.pending[timer] = struct{}{}
}

// soon runs f at once on another goroutine.
func (l *later) soon(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.running.Go(f)
	}
}

// stop forgets what is due later and waits for what is running.
func (l *later) stop() {
	l.mu.Lock()
	l.stopped = true
	for timer := range l.pending {
		if timer.Stop() {
			l.running.Done()
		}
	}
	l.pending = nil
	l.mu.Unlock()
	l.running.Wait()
}
