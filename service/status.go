package service

import (
	"sync"
	"time"

	"rtcd/service/api"
	"rtcd/service/report"
)

// statusAge is how old what is shown may be: many who look cost no more than one.
const statusAge = time.Second

// A statuser collects what the server is doing.
type statuser struct {
	s *Server

	mu   sync.Mutex
	at   time.Time
	last api.StatusReport
}

// Status implements api.Status.
func (u *statuser) Status() api.StatusReport {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); u.at.IsZero() || now.Sub(u.at) >= statusAge {
		u.last, u.at = u.s.status(now), now
	}
	out := u.last
	out.Tenants = append([]api.TenantStatus(nil), out.Tenants...)
	out.Calls = append([]api.CallStatus(nil), out.Calls...)
	out.Sessions = append([]api.SessionStatus(nil), out.Sessions...)
	return out
}

// status collects what there is. Sessions come by client and call.
func (s *Server) status(now time.Time) api.StatusReport {
	out := api.StatusReport{Build: s.build, Started: s.started, Listeners: s.Listeners()}
	for _, o := range s.calls.Overview() {
		ses := api.SessionStatus{
			ClientID: o.GroupID, CallID: o.CallID, SessionID: o.SessionID, Seconds: int(now.Sub(o.Joined).Seconds()),
			Quality: string(o.Last.Grade()), RoundTrip: int(o.Last.RoundTrip), LossUp: o.Last.Up.Loss(), LossDown: o.Last.Down.Loss(),
			Up: int(o.Last.Up.Kilobits()), Down: int(o.Last.Down.Bytes / 125), Reduced: int(o.Last.Down.Reduced + o.Last.Down.Paused),
		}
		switch {
		case o.Last.State&report.Connected == 0:
		case o.Last.State&report.OverTCP != 0:
			ses.Path = "tcp"
		default:
			ses.Path = "udp"
		}
		out.Sessions = append(out.Sessions, ses)
		if n := len(out.Tenants); n == 0 || out.Tenants[n-1].ClientID != o.GroupID {
			out.Tenants = append(out.Tenants, api.TenantStatus{ClientID: o.GroupID, Connections: s.ws.Connections(o.GroupID)})
		}
		tenant := &out.Tenants[len(out.Tenants)-1]
		if n := len(out.Calls); n == 0 || out.Calls[n-1].CallID != o.CallID || out.Calls[n-1].ClientID != o.GroupID {
			out.Calls = append(out.Calls, api.CallStatus{ClientID: o.GroupID, CallID: o.CallID})
			tenant.Calls++
		}
		call := &out.Calls[len(out.Calls)-1]
		call.Participants++
		call.Seconds = max(call.Seconds, ses.Seconds)
		if o.Last.Grade() == report.Poor {
			call.Poor++
		}
		tenant.Sessions++
		tenant.Kilobits += ses.Up + ses.Down
	}
	return out
}
