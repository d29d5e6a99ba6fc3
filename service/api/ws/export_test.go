package ws

// Routes returns how many sessions have a route.
func (s *Server) Routes() int {
	s.mu.Lock()
	defer s.unlock()
	n := 0
	for _, cl := range s.clients {
		n += len(cl.routes)
	}
	return n
}
