package rtc

// Edges of the limits of a session, which a test reaches through what it posts.
const (
	MaxPosted       = maxPosted
	MaxChannelQueue = maxChannelQueue
)

// Post has f called by the loop of a session.
func (s *Server) Post(groupID, sessionID string, f func()) { s.find(groupID, sessionID).post(f) }

// Unread returns how many bytes wait for the endpoint of a session.
func (s *Server) Unread(groupID, sessionID string) uint64 {
	ses := s.find(groupID, sessionID)
	n := make(chan uint64)
	ses.post(func() { n <- ses.channel.BufferedAmount() })
	return <-n
}

// SendChannel has the loop of a session send messages to its endpoint.
func (s *Server) SendChannel(groupID, sessionID string, messages ...[]byte) {
	ses := s.find(groupID, sessionID)
	for _, b := range messages {
		ses.post(func() { ses.sendChannel(b) })
	}
}
