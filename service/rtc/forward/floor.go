package forward

import (
	"sync"
	"time"

	"rtcd/service/rtc/speech"
)

// Floor decides which voices of a call are forwarded: the loudest ones. The publications of one
// call share it. Its methods are safe for concurrent use.
type Floor struct {
	mu    sync.Mutex
	floor *speech.Floor // guarded by mu
}

// NewFloor returns one that forwards the n loudest voices.
func NewFloor(n int) *Floor { return &Floor{floor: speech.NewFloor(n)} }

// usualLevel is that of speech, in -dBov: voices that do not tell theirs are taken to have it.
const usualLevel = 30

// admit reports whether a packet of pub, of that level (RFC 6464), is forwarded.
func (f *Floor) admit(pub *Publication, level uint8, now time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.floor.Admit(pub.id, level, now)
}

// leave gives the place of pub back.
func (f *Floor) leave(pub *Publication) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.floor.Leave(pub.id)
}
