package rtc

import "time"

// Silence tells a session that its path is silent, whether it is or not.
func (s *Server) Silence(groupID, sessionID string, quiet time.Duration) {
	ses := s.find(groupID, sessionID)
	ses.post(func() { ses.fellSilent(quiet) })
}

// Relaxed returns whether a session's watch forgets what is usual, next.
func (s *Server) Relaxed(groupID, sessionID string) bool {
	return s.find(groupID, sessionID).watch.relaxed.Load()
}

// HearAgain tells a session that it is not.
func (s *Server) HearAgain(groupID, sessionID string) {
	ses := s.find(groupID, sessionID)
	ses.post(ses.heardAgain)
}
