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

// Receive has the oldest connection of a client handle a message, as if it had come.
func (s *Server) Receive(clientID string, data []byte) {
	s.mu.Lock()
	c := s.clients[clientID].conns[0]
	s.mu.Unlock()
	c.receive(data)
}
