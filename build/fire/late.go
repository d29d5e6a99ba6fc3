//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// lateness is how late a goroutine of the harness is woken: on a machine that is busy with something
// else, times of the server say nothing about the server.
type lateness struct {
	mu    sync.Mutex
	worst time.Duration // since the start
	sum   time.Duration
	n     int
}

// watch measures until the context ends.
func (l *lateness) watch(ctx context.Context) {
	const every = 10 * time.Millisecond
	timer := time.NewTimer(every)
	defer timer.Stop()
	for due := time.Now().Add(every); ; {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		l.mu.Lock()
		late := max(0, now.Sub(due))
		l.worst = max(l.worst, late)
		l.sum += late
		l.n++
		l.mu.Unlock()
		due = now.Add(every)
		timer.Reset(every)
	}
}

// read returns the worst and the mean so far.
func (l *lateness) read() (worst, mean time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		return 0, 0
	}
	return l.worst, l.sum / time.Duration(l.n)
}

// within expects that something took at most so long. If it took longer and the harness itself was
// late by much of it, nothing is said about the server: the time is not judged.
func (t *trial) within(took, most time.Duration, format string, args ...any) bool {
	if took <= most {
		return true
	}
	if worst, _ := t.late.read(); worst > most/4 {
		t.notJudged(format, args...)
		return true
	}
	return t.expect(false, format, args...)
}

// notJudged notes that something did not hold, which may be the machine's fault.
func (t *trial) notJudged(format string, args ...any) {
	worst, _ := t.late.read()
	t.result.NotJudged = append(t.result.NotJudged, fmt.Sprintf("machine late by %v: ", worst.Round(time.Millisecond))+fmt.Sprintf(format, args...))
}
