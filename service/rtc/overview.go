package rtc

import (
	"cmp"
	"slices"
	"time"

	"rtcd/service/report"
)

// A SessionOverview is what there is to see of a session at a glance.
type SessionOverview struct {
	GroupID   string
	CallID    string
	SessionID string
	Joined    time.Time
	Last      report.Sample // its last second; zero before there is one
}

// Overview tells of all sessions, by group, call and id.
func (s *Server) Overview() []SessionOverview {
	s.mu.Lock()
	out := make([]SessionOverview, 0, len(s.sessions))
	for k, ses := range s.sessions {
		out = append(out, SessionOverview{GroupID: k.group, CallID: ses.info.CallID, SessionID: k.id, Joined: ses.joined})
	}
	s.mu.Unlock()
	for i := range out {
		out[i].Last, _ = s.LastSample(out[i].GroupID, out[i].SessionID)
	}
	slices.SortFunc(out, func(a, b SessionOverview) int {
		return cmp.Or(cmp.Compare(a.GroupID, b.GroupID), cmp.Compare(a.CallID, b.CallID), cmp.Compare(a.SessionID, b.SessionID))
	})
	return out
}
