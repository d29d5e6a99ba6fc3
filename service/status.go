package service

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"rtcd/service/api"
	"rtcd/service/metrics"
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
	out := api.StatusReport{Build: s.build, Started: s.started, Listeners: s.Listeners(), Findings: s.findings, Store: s.storeStatus(), Limits: s.limitStatus()}
	connected := s.ws.Connected()
	for _, o := range s.calls.Overview() {
		ses := api.SessionStatus{
			ClientID: o.GroupID, CallID: o.CallID, SessionID: o.SessionID, Seconds: int(now.Sub(o.Joined).Seconds()),
			Quality: string(o.Last.Grade()), RoundTrip: int(o.Last.RoundTrip), LossUp: o.Last.Up.Loss(), LossDown: o.Last.Down.Loss(),
			Delay: int(max(o.Last.Up.Delay, o.Last.Down.Delay)), Jitter: int(max(o.Last.Up.Jitter, o.Last.Down.Jitter)),
			LayersUp: int(o.Last.Up.Layers), LayersDeclared: int(o.Last.Up.Declared), Videos: int(o.Last.Down.Videos), Paused: int(o.Last.Down.Paused),
			Up: int(o.Last.Up.Kilobits()), Down: int(o.Last.Down.Bytes / 125), Reduced: int(o.Last.Down.Reduced),
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
			out.Tenants = append(out.Tenants, api.TenantStatus{ClientID: o.GroupID, Connections: connected[o.GroupID]})
			delete(connected, o.GroupID)
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
	idle := len(out.Tenants)
	for id, n := range connected { // and no session here
		out.Tenants = append(out.Tenants, api.TenantStatus{ClientID: id, Connections: n})
	}
	slices.SortFunc(out.Tenants[idle:], func(a, b api.TenantStatus) int { return strings.Compare(a.ClientID, b.ClientID) })
	sessions, calls := s.calls.Load() // of all processes
	out.FormerSessions, out.FormerCalls = max(0, sessions-len(out.Sessions)), max(0, calls-len(out.Calls))
	return out
}

// storeStatus is about the store of clients.
func (s *Server) storeStatus() api.StoreStatus {
	out := api.StoreStatus{Path: s.cfg.Store.DataSource, Clients: s.store.Count()}
	space, ok := s.store.Space()
	if !ok {
		out.Path = "in memory"
		return out
	}
	out.Bytes, out.Free, out.MinFree = space.Used, space.Free, space.MinFree
	return out
}

// limitStatus lists the limits that were hit, those hit most first.
func (s *Server) limitStatus() []api.LimitStatus {
	hit := s.metrics.LimitsHit()
	var out []api.LimitStatus
	for _, l := range metrics.Limits() {
		if n := hit[l.Name]; n > 0 {
			out = append(out, api.LimitStatus{Name: string(l.Name), Hits: n, Setting: strings.ReplaceAll(l.Setting, "`", ""), Meaning: l.Meaning})
		}
	}
	slices.SortStableFunc(out, func(a, b api.LimitStatus) int { return cmp.Compare(b.Hits, a.Hits) })
	return out
}
