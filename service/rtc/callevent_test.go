package rtc

import (
	"slices"
	"testing"
)

// TestCallEventsKeepTheirOrder notes events while they are being told, and some more than may wait.
func TestCallEventsKeepTheirOrder(t *testing.T) {
	var told []string
	lost := 0
	blocked, free := make(chan struct{}), make(chan struct{})
	events := newCallEvents(func(ev CallEvent) {
		if len(told) == 0 {
			close(blocked)
			<-free
		}
		told = append(told, ev.Detail)
	}, func() { lost++ })
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); events.run(stop) }()

	events.note(CallEvent{Detail: "0"})
	<-blocked
	for range maxCallEvents + 3 {
		events.note(CallEvent{Detail: "1"})
	}
	close(free)
	close(stop)
	<-done
	if len(told) != 1+maxCallEvents || !slices.IsSorted(told) {
		t.Errorf("told of %d events, want %d in order", len(told), 1+maxCallEvents)
	}
	if lost != 3 {
		t.Errorf("%d events counted as lost, want 3", lost)
	}
}
