package rtc

import (
	"time"

	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
)

// LimitBitrate counts packets over Limits.BitratePerClient.
const LimitBitrate metrics.Limit = "bitrate_per_client"

// Times between looks at budgets, and between log lines of one client.
const (
	budgetPeriod = time.Second
	budgetLog    = 10 * time.Second
)

// newBudget returns that of another client; nil: there is no limit.
func (s *Server) newBudget() *forward.Budget {
	if s.cfg.Limits.BitratePerClient <= 0 {
		return nil
	}
	return forward.NewBudget(s.cfg.Limits.BitratePerClient)
}

// watchBudgets counts and tells what was dropped for being over the budgets of clients.
func (s *Server) watchBudgets() {
	t := time.NewTicker(budgetPeriod)
	defer t.Stop()
	told := make(map[string]time.Time)
	for {
		select {
		case now := <-t.C:
			for id, n := range s.overBudget() {
				if now.Sub(told[id]) >= budgetLog {
					told[id] = now
					s.log.Warn("client sends more than its share, packets are dropped", "groupID", id, "packets", n,
						"setting", "rtc.limits."+string(LimitBitrate), "bitrateBps", s.cfg.Limits.BitratePerClient)
				}
			}
			for id, at := range told {
				if now.Sub(at) >= budgetLog {
					delete(told, id)
				}
			}
		case <-s.stop:
			s.overBudget()
			return
		}
	}
}

// overBudget counts what was dropped since the last time, and returns how much it was by client.
func (s *Server) overBudget() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[string]uint64
	for id, g := range s.groups {
		if n := s.countOverLocked(g); n > 0 {
			if out == nil {
				out = make(map[string]uint64)
			}
			out[id] = n
		}
	}
	return out
}

// countOverLocked counts what was dropped of a client since the last time.
func (s *Server) countOverLocked(g *group) uint64 {
	if g.budget == nil {
		return 0
	}
	n := g.budget.Refused()
	s.cfg.Metrics.LimitHits(LimitBitrate, n)
	return n
}
