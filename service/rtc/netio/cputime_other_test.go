//go:build !linux

package netio

import "time"

var processStart = time.Now()

// cpuTime is the clock where the time of the processor cannot be had.
func cpuTime() time.Duration { return time.Since(processStart) }
