package forward

import (
	"maps"
	"sync/atomic"

	"rtcd/service/rtc/netio"
)

// paths says which peer is on a path. Looking that up is for every packet and takes no lock. A change
// copies one of its parts, so that what somebody costs who joins does not grow with all that are there.
type paths struct {
	parts [256]atomic.Pointer[map[netio.Path]*Peer] // each replaced as a whole; nil: empty
}

// find returns the peer on a path, nil if there is none.
func (p *paths) find(path netio.Path) *Peer {
	if m := p.parts[path.Spread()].Load(); m != nil {
		return (*m)[path]
	}
	return nil
}

// set puts a peer on a path, or nobody if it is nil. Changes are made by one goroutine at a time.
func (p *paths) set(path netio.Path, peer *Peer) {
	part := &p.parts[path.Spread()]
	var next map[netio.Path]*Peer
	if old := part.Load(); old != nil {
		next = maps.Clone(*old)
	}
	if peer == nil {
		delete(next, path)
	} else {
		if next == nil {
			next = make(map[netio.Path]*Peer, 1)
		}
		next[path] = peer
	}
	if len(next) == 0 {
		part.Store(nil)
		return
	}
	part.Store(&next)
}
