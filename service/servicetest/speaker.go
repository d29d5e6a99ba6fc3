package servicetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
)

// pace is the time between two packets of a Speaker: quicker than people speak, to save time.
const pace = 8 * time.Millisecond

// A Speaker sends the voice of an end user, packet after packet, until it is stopped.
type Speaker struct {
	name    string
	e       *rtctest.Endpoint
	excited atomic.Bool
	stop    chan struct{}
	once    sync.Once
	done    chan error
}

// Speak starts a speaker whose level is steady, which is no voice. The test stops it.
func Speak(t testing.TB, name string, e *rtctest.Endpoint) *Speaker {
	s := &Speaker{name: name, e: e, stop: make(chan struct{}), done: make(chan error, 1)}
	go func() { s.done <- s.run() }()
	t.Cleanup(func() { s.Stop(t) })
	return s
}

func (s *Speaker) run() error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		level := uint8(60)
		if s.excited.Load() && n%2 == 0 {
			level = 10
		}
		if err := s.e.SendVoice(s.name, n, level); err != nil {
			return fmt.Errorf("packet %d: %w", n, err)
		}
		select {
		case <-tick.C:
		case <-s.stop:
			return nil
		}
	}
}

// Excite makes the level vary, which is a voice, or steady again.
func (s *Speaker) Excite(on bool) { s.excited.Store(on) }

// Stop ends the speaker; it may be called more than once.
func (s *Speaker) Stop(t testing.TB) {
	t.Helper()
	s.once.Do(func() {
		close(s.stop)
		if err := <-s.done; err != nil {
			t.Errorf("%s: send: %v", s.name, err)
		}
	})
}

// Unbroken fails the test unless e has heard each packet of the sender, from the first to the last
// that came, once, in order and unchanged.
func Unbroken(t testing.TB, e *rtctest.Endpoint, sender string) {
	t.Helper()
	h := e.Heard(sender)
	if h.Packets == 0 || h.Bad > 0 || h.Gaps > 0 {
		t.Errorf("of %s: %d packets, %d changed, %d gaps in the sequence numbers", sender, h.Packets, h.Bad, h.Gaps)
		return
	}
	for i, n := range h.Numbers {
		if n != h.Numbers[0]+uint32(i) {
			t.Errorf("of %s: after number %d came %d", sender, h.Numbers[max(0, i-1)], n)
			return
		}
	}
}

// HearsAll reports whether at least so many packets of every sender were heard.
func HearsAll(packets int, senders ...string) func(heard func(string) rtctest.Heard) bool {
	return func(heard func(string) rtctest.Heard) bool {
		return !slices.ContainsFunc(senders, func(s string) bool { return heard(s).Packets < packets })
	}
}
