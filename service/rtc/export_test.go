package rtc

import (
	"time"

	"rtcd/service/rtc/negotiate"
)

// SetTimes shortens the times of sessions; zero keeps the default.
func SetTimes(c *Config, firstOffer, setup time.Duration, n negotiate.Config) {
	c.times = times{firstOffer: firstOffer, setup: setup, negotiate: n}
}

// SetSettle shortens how long a session is on UDP before it gives up TCP.
func SetSettle(c *Config, d time.Duration) { c.times.settle = d }

// Sharer returns the id of the session that shares the screen of a call, or "".
func (s *Server) Sharer(groupID, callID string) string {
	s.mu.Lock()
	c := s.groups[groupID].calls[callID]
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sharers {
		return s.info.SessionID
	}
	return ""
}
