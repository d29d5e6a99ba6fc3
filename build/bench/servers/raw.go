//go:build linux

package servers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"rtcd/build/bench/endpoint"
)

// Raw is rawudp: bare sockets in place of endpoints.
type Raw struct {
	*Process
	Sockets []*endpoint.Socket
	Sources []*endpoint.Source
	// Receivers is how many get what each source sends.
	Receivers []int
}

// StartRaw starts a binary of rawudp in one of its modes, with a socket for each member of the
// rooms. The sockets drop all that comes.
func StartRaw(ctx context.Context, binary, mode string, rooms []Room) (*Raw, error) {
	// The thread of rawudp waits in the kernel; the runtime is to leave it alone.
	env := []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1"}
	p, addr, err := start(ctx, env, true, binary, "-mode", mode)
	if err != nil {
		return nil, err
	}
	r := &Raw{Process: p}
	if err := r.wire(addr, rooms); err != nil {
		r.Stop()
		return nil, fmt.Errorf("set up rawudp: %w", err)
	}
	return r, nil
}

func (r *Raw) wire(addr string, rooms []Room) error {
	server, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	routes := make(map[string][]string)
	for _, room := range rooms {
		var sockets []*endpoint.Socket
		for range room.Members {
			s, err := endpoint.NewSocket(false)
			if err != nil {
				return err
			}
			r.Sockets = append(r.Sockets, s)
			sockets = append(sockets, s)
			if err := s.DropAll(); err != nil {
				return err
			}
		}
		for i, m := range room.Members {
			for _, k := range m.Publish {
				r.Sources = append(r.Sources, endpoint.NewRawSource(k, sockets[i], server))
				r.Receivers = append(r.Receivers, len(sockets)-1)
			}
			if len(m.Publish) == 0 {
				continue
			}
			var to []string
			for j, s := range sockets {
				if j != i {
					to = append(to, s.Addr().String())
				}
			}
			routes[sockets[i].Addr().String()] = to
		}
	}
	if err := json.NewEncoder(r.stdin).Encode(routes); err != nil {
		return fmt.Errorf("send the destinations: %w", err)
	}
	return r.stdin.Close()
}

// Stop ends the process and closes the sockets.
func (r *Raw) Stop() {
	r.Process.Stop()
	for _, s := range r.Sockets {
		_ = s.Close()
	}
}
