package rtc

import "rtcd/service/rtc/forward"

// Forwarded returns what the data plane has counted.
func (s *Server) Forwarded() forward.Stats { return s.plane.Stats() }
