package rtc

import "time"

// Silence tells a session that its path is silent, whether it is or not.
func (s *Server) Silence(groupID, sessionID string, quiet time.Duration) {
	ses := s.find(groupID, sessionID)
	ses.post(func() { ses.fellSilent(quiet) })
}

// HearAgain tells a session that it is not.
func (s *Server) HearAgain(groupID, sessionID string) {
	ses := s.find(groupID, sessionID)
	ses.post(ses.heardAgain)
}
