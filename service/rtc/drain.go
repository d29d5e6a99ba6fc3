package rtc

// Drain refuses new calls from now on; joins to running calls go on. The channel is closed when the
// last call has ended, unless Undrain comes first.
func (s *Server) Drain() <-chan struct{} {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.idleLocked()
	s.mu.Unlock()
	s.endIdle(func(*call) bool { return true })
	return idle
}

// Undrain takes new calls again.
func (s *Server) Undrain() {
	s.mu.Lock()
	s.draining = false
	s.mu.Unlock()
}

// Draining reports whether new calls are refused.
func (s *Server) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining || s.stopped
}

// EndAll ends all sessions there are, telling their backends, and the calls that only linger. Whoever
// is not to come back has to be refused before: see Drain.
func (s *Server) EndAll() {
	for _, ses := range s.list(func(key) bool { return true }) {
		ses.end(CloseShutdown)
	}
	s.endIdle(func(*call) bool { return true })
}

// Load returns the number of live sessions, and of calls.
func (s *Server) Load() (sessions, calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions), s.calls
}

// idleLocked tells who drains the server when there is no call any more.
func (s *Server) idleLocked() {
	if !s.draining || s.calls > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}
