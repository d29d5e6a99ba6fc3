//go:build !linux

package stream

import "net"

// unacknowledged cannot tell on this system; what was written counts as delivered.
func unacknowledged(net.Conn) (pending int64, alive, ok bool) { return 0, false, false }
