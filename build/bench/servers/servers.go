//go:build linux

package servers

import (
	"context"
	"time"

	"rtcd/build/bench/endpoint"
)

// Room is who is in a call.
type Room struct {
	Name    string
	Members []Member
}

// Member is one session.
type Member struct {
	ID      string
	Publish []endpoint.Kind
	Stamps  bool // its packets are to be timed
}

// Server is one that endpoints can join.
type Server interface {
	// Prepare tells of the rooms, before anybody joins one.
	Prepare(ctx context.Context, rooms []Room) error
	// Endpoint makes the endpoint of a member, not connected.
	Endpoint(room Room, m Member) (*endpoint.Endpoint, error)
	// Join brings it into the room and returns once its data channel is open.
	Join(ctx context.Context, room string, e *endpoint.Endpoint) error
	// Goroutines returns how many the process has.
	Goroutines(ctx context.Context) (int, error)
	// Forwarded returns how many RTP packets the server says to have forwarded.
	Forwarded(ctx context.Context) (uint64, error)
	// Profile returns a CPU profile of the process, as pprof has it.
	Profile(ctx context.Context, d time.Duration) ([]byte, error)

	CPU() (time.Duration, error)
	Resident() (int64, error)
	Stop()
}
