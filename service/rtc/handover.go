package rtc

import (
	"net/netip"

	"rtcd/service/rtc/netio"
)

// CallKey names a call.
type CallKey struct{ GroupID, CallID string }

// HandOver prepares for a successor that listens on the same addresses: what the endpoints there are
// send goes on reaching this server. It returns duplicates of the listening sockets.
func (s *Server) HandOver() (*netio.Sockets, error) {
	if err := s.mux.Connect(s.engine.Paths()); err != nil {
		return nil, err
	}
	return s.mux.Sockets()
}

// Succeed says that this server listens on addresses of others that still have endpoints there, or
// with false that it does not any more.
func (s *Server) Succeed(others bool) error {
	if !others {
		s.mux.Settle()
		return nil
	}
	return s.mux.Connect(s.engine.Paths())
}

// Release leaves all that is new to the successor. Calls that there are go on, and are joined.
func (s *Server) Release() error {
	s.mu.Lock()
	s.retired = true
	s.mu.Unlock()
	return s.mux.Release()
}

// SetStray and Inject exchange datagrams between servers that listen on the same addresses; see
// netio.Mux.
func (s *Server) SetStray(f func(netio.Stray)) { s.mux.SetStray(f) }

// Inject takes a datagram that came to another server.
func (s *Server) Inject(d netio.Stray) { s.mux.Inject(d) }

// Found returns our external addresses as Config.Discover told them.
func (s *Server) Found() map[netip.Addr]netip.Addr { return s.cfg.Engine.Override.Found }

// Live lists all sessions, and all calls: also those that linger.
func (s *Server) Live() (sessions []SessionInfo, calls []CallKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		sessions = append(sessions, ses.info)
	}
	for id, g := range s.groups {
		for call := range g.calls {
			calls = append(calls, CallKey{id, call})
		}
	}
	return sessions, calls
}

// Idle is closed once there are no calls any more, after Release.
func (s *Server) Idle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = make(chan struct{})
	}
	s.overLocked()
	return s.over
}

// overLocked tells who waits for Idle.
func (s *Server) overLocked() {
	if s.over == nil || !s.retired || s.calls > 0 {
		return
	}
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}
