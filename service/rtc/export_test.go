package rtc

import (
	"time"

	"rtcd/service/rtc/negotiate"
)

// SetTimes shortens the times of sessions; zero keeps the default.
func SetTimes(c *Config, firstOffer, setup time.Duration, n negotiate.Config) {
	c.times = times{firstOffer: firstOffer, setup: setup, negotiate: n}
}
