package rtc

// Edges of the limits of a session, which a test reaches through what it posts.
const (
	MaxPosted       = maxPosted
	MaxChannelQueue = maxChannelQueue
)

// Post has f called by the loop of a session.
func (s *Server) Post(groupID, sessionID string, f func()) { s.find(groupID, sessionID).post(f) }

// SendChannel has the loop of a session send a message to its endpoint.
func (s *Server) SendChannel(groupID, sessionID string, b []byte) {
	ses := s.find(groupID, sessionID)
	ses.post(func() { ses.sendChannel(b) })
}
