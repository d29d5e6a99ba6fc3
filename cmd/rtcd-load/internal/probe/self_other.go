//go:build !unix

package probe

import "time"

// OwnCPU returns the CPU time of this process, user and system; negative if it is not known.
func OwnCPU() time.Duration { return -1 }
