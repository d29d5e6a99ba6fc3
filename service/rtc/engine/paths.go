package engine

import "rtcd/service/rtc/netio"

// Paths returns the paths over UDP that agents have sent to.
func (e *Engine) Paths() []netio.Path {
	var out []netio.Path
	for i, m := range e.muxes {
		m.mu.Lock()
		for address := range m.known {
			out = append(out, netio.NewPath(i, address, false))
		}
		m.mu.Unlock()
	}
	return out
}
