package ws

import (
	"slices"
	"time"

	"rtcd/service/metrics"
)

// park keeps an item for later.
func (s *Server) park(r *route, it item) {
	if it.parked.IsZero() {
		it.parked = time.Now()
	}
	it.end = -1
	r.parked = append(r.parked, it)
	s.account(r, it, 1)
	s.away[r] = struct{}{}
}

// unparkAll takes everything out; the items stay with whoever holds the slice.
func (s *Server) unparkAll(r *route) {
	for _, it := range r.parked {
		s.account(r, it, -1)
	}
	r.parked = nil
	delete(s.away, r)
}

// dropParked drops what is parked and not kept, in one pass.
func (s *Server) dropParked(r *route, reason metrics.DiscardReason, keep func(item) bool) {
	r.parked = slices.DeleteFunc(r.parked, func(it item) bool {
		if keep(it) {
			return false
		}
		s.account(r, it, -1)
		s.metrics.Discarded(reason)
		return true
	})
	if len(r.parked) == 0 {
		r.parked = nil
		delete(s.away, r)
	}
}

// account adds n times the item to what is kept for its session and client.
func (s *Server) account(r *route, it item, n int) {
	if it.kind == Close {
		r.client.parkedCloses += n
		return
	}
	r.parkedMessages += n
	r.parkedSize += n * len(it.data)
	r.client.parkedMessages += n
	r.client.parkedBytes += n * len(it.data)
}

// trim brings what is parked back within the limits: of the voice activity, which is stale
// first, the oldest go, then the newest of the rest. A close stays, as the client must learn of
// it whenever it returns; only their number per client is bounded.
func (s *Server) trim(r *route) {
	cl := r.client
	if cl.parkedCloses > s.cfg.ParkedClientMessages &&
		slices.ContainsFunc(r.parked, func(it item) bool { return it.kind == Close }) {
		s.metrics.LimitHit(LimitParked)
		s.metrics.Discarded(metrics.ParkedOverflow)
		s.forget(r)
		return
	}
	if !s.overfull(r) {
		return
	}
	s.metrics.LimitHit(LimitParked)
	s.dropParked(r, metrics.ParkedOverflow, func(it item) bool { return it.kind != VAD || !s.overfull(r) })
	slices.Reverse(r.parked)
	s.dropParked(r, metrics.ParkedOverflow, func(it item) bool { return it.kind == Close || !s.overfull(r) })
	slices.Reverse(r.parked)
}

// overfull reports whether more is parked for a session, or its client, than may be. While a
// session only waits for an old connection, it may have as much as a connection's queue.
func (s *Server) overfull(r *route) bool {
	cl, cfg := r.client, &s.cfg
	messages, size := cfg.ParkedMessages, cfg.ParkedBytes
	if r.conn != nil {
		messages, size = cfg.QueueMessages, cfg.QueueBytes
	}
	return r.parkedMessages > 0 && (r.parkedMessages > messages || r.parkedSize > size ||
		cl.parkedMessages > cfg.ParkedClientMessages || cl.parkedBytes > cfg.ParkedClientBytes)
}

// orphaned returns the clients that have been without a connection for too long.
func (s *Server) orphaned(now time.Time) (ids []string) {
	if s.cfg.OrphanedAfter <= 0 {
		return nil
	}
	for id, cl := range s.clients {
		switch {
		case len(cl.conns) > 0 || len(cl.routes) == 0:
			cl.awaySince = time.Time{}
		case cl.awaySince.IsZero():
			cl.awaySince = now
		case now.Sub(cl.awaySince) >= s.cfg.OrphanedAfter:
			cl.awaySince = now
			ids = append(ids, id)
		}
	}
	return ids
}

// expire drops what is parked for longer than ParkedFor, but closes.
func (s *Server) expire(r *route, now time.Time) {
	s.dropParked(r, metrics.ParkedExpired, func(it item) bool {
		return it.kind == Close || now.Sub(it.parked) < s.cfg.ParkedFor
	})
}
