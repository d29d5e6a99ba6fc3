package ws

import (
	"context"
	"time"
)

// Parked is what a Server keeps for a session that lives, or whose close its client has not got.
type Parked struct {
	ClientID, SessionID string
	Messages            []ParkedMessage `json:",omitempty"` // in their order
}

// A ParkedMessage is one that the client has not got.
type ParkedMessage struct {
	Kind Kind
	Data []byte // as it goes over the wire
	At   time.Time
}

// HandOver is Close for a server whose sessions go on: it returns what another Server needs to serve
// them, once their clients have come to it. Clients are told to close their connections, and until they
// do, or ctx is done, what they send is handled as ever. Send must not be called meanwhile.
func (s *Server) HandOver(ctx context.Context) ([]Parked, error) {
	err := s.finish(ctx, true)
	s.mu.Lock()
	defer s.unlock()
	var out []Parked
	for id, cl := range s.clients {
		if cl.dropped {
			continue
		}
		for session, r := range cl.routes {
			p := Parked{ClientID: id, SessionID: session}
			for _, it := range r.parked {
				p.Messages = append(p.Messages, ParkedMessage{it.kind, it.data, it.parked})
			}
			out = append(out, p)
		}
	}
	s.forgetAll()
	return out, err
}

// Import makes a Server that has no connections yet serve sessions of another one.
func (s *Server) Import(list []Parked) {
	s.mu.Lock()
	defer s.unlock()
	for _, p := range list {
		cl := s.clients[p.ClientID]
		if cl == nil {
			cl = &client{id: p.ClientID, tenant: s.metrics.Tenant(p.ClientID), routes: make(map[string]*route)}
			s.clients[p.ClientID] = cl
		}
		if cl.routes[p.SessionID] != nil {
			continue
		}
		r := cl.newRoute(p.SessionID, nil)
		for _, m := range p.Messages {
			s.park(r, item{data: m.Data, kind: m.Kind, route: r, parked: m.At})
		}
		s.trim(r)
	}
}
