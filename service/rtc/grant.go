package rtc

import (
	"errors"
	"fmt"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
)

// Grant is what a session may do in its call, as whoever admitted it says. The zero Grant is that of
// clients which know of none: everything, in a call that ends with its last session.
type Grant struct {
	Role wire.CallRole

	// MaxParticipants is how many sessions the call may have with this one; 0 or less: as
	// Config.MaxParticipants says, which it cannot exceed.
	MaxParticipants int

	// Linger is how long the call stays after its last session, for those who come back: with what
	// moderators decided in it. The longest that any session brought counts.
	Linger time.Duration

	// Managed says that the call was made before its first session. Once it has ended there is no
	// joining it.
	Managed bool

	// Present says that the session is in already, so that there is nothing to start: if it is not, or
	// not any more, the join fails with ErrNoSession.
	Present bool

	// EndOnCreatorLeave ends the call with this session if it is the call's first.
	EndOnCreatorLeave bool
}

// mayPublish reports whether the endpoint may send media.
func (g *Grant) mayPublish() bool { return g.Role != wire.RoleSubscriber }

// maySubscribe reports whether the endpoint is sent media of others.
func (g *Grant) maySubscribe() bool { return g.Role != wire.RolePublisherOnly }

// Refusal is an error with a name for programs.
type Refusal struct{ text, reason string }

// Error says what was refused.
func (r *Refusal) Error() string { return r.text }

// Reason is the name.
func (r *Refusal) Reason() string { return r.reason }

// Errors of Join, Signal and what moderators do.
var (
	ErrNoSession error = &Refusal{"no such session", "not_found"}
	ErrNoCall    error = &Refusal{"no such call", "not_found"}
	ErrNoStream  error = &Refusal{"no such stream", "not_found"}
	ErrDraining  error = &Refusal{"server takes no new calls", "draining"}
	ErrOtherCall error = &Refusal{"session is in another call", "other_call"}
	ErrCallEnded error = &Refusal{"call has ended", "call_ended"}
	ErrRole      error = &Refusal{"role is not known", "bad_role"}
	ErrStopped   error = &Refusal{"server stopped", "draining"}

	// ErrLimit is what errors of limits are. Their Reason says which: "call_full", "at_capacity" for
	// those of the server, else "limit_" and its name.
	ErrLimit = errors.New("limit reached")
)

// limitError is the error of one limit.
type limitError struct{ limit metrics.Limit }

func (e limitError) Error() string   { return fmt.Sprintf("%v: %s", ErrLimit, string(e.limit)) }
func (e limitError) Is(t error) bool { return t == ErrLimit }

// Reason is the name of the refusal.
func (e limitError) Reason() string {
	switch e.limit {
	case LimitParticipants, LimitCallSessions:
		return "call_full"
	case LimitSessions, LimitCalls:
		return "at_capacity"
	}
	return "limit_" + string(e.limit)
}
