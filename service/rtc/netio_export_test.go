package rtc

import "rtcd/service/rtc/netio"

// Sockets returns what the media sockets have counted.
func (s *Server) Sockets() netio.Stats { return s.mux.Stats() }
