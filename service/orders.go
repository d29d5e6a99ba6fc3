package service

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/handover"
	"rtcd/service/report"
	"rtcd/service/rtc"
)

// upgradeProtocol is the version of all that processes say to each other. It changes whenever one that
// does not know the change would do wrong: they refuse each other then.
const upgradeProtocol = 1

// Kinds of frames between the process in front and a former one.
const (
	frameOrder   = handover.FirstKind + iota // front → former: an order, answered with an outcome
	frameStray                               // either way: a datagram for the other one
	frameEmit                                // former → front, as all below: an rtc.Event
	frameEnded                               // a rtc.CallKey
	frameChanged                             // a changedCall
	frameEvent                               // a rtc.CallEvent
	frameSettled                             // all that was kept during the handover is told
	frameRecord                              // a keptCall, answered with nothing
)

// Verbs of orders.
const (
	orderJoin         = "join"
	orderLeave        = "leave"
	orderSignal       = "signal"
	orderDisconnect   = "disconnect"
	orderUnpublish    = "unpublish"
	orderMute         = "mute"
	orderMuteAll      = "mute_all"
	orderSetMuteState = "set_mute_state"
	orderEndCall      = "end_call"
	orderEndGroup     = "end_group"
	orderSessions     = "sessions"
	orderCall         = "call"
	orderCalls        = "calls"
	orderRecord       = "record"
	orderDrain        = "drain"
	orderEndAll       = "end_all"
)

// An order is what the process in front wants of one that has the calls.
type order struct {
	Verb    string
	Group   string       `json:",omitempty"`
	Call    string       `json:",omitempty"`
	Session string       `json:",omitempty"`
	Stream  string       `json:",omitempty"`
	Join    *wire.Join   `json:",omitempty"`
	Grant   *rtc.Grant   `json:",omitempty"`
	Signal  *wire.Signal `json:",omitempty"`
	Except  []string     `json:",omitempty"`
	Active  bool         `json:",omitempty"`
	Until   bool         `json:",omitempty"` // the end of the call
}

// An outcome is what became of an order.
type outcome struct {
	Refusal  *refusal          `json:",omitempty"`
	Known    bool              `json:",omitempty"`
	Sessions []rtc.SessionInfo `json:",omitempty"`
	Calls    []rtc.CallInfo    `json:",omitempty"`
	Record   *report.Record    `json:",omitempty"`
}

type changedCall struct {
	Group string
	Call  rtc.CallInfo
}

// carryOut does what an order says.
func carryOut(calls *rtc.Server, o order) (out outcome) {
	var err error
	switch o.Verb {
	case orderJoin:
		if o.Join == nil || o.Grant == nil {
			err = errOrder
			break
		}
		err = calls.JoinAs(o.Group, *o.Join, *o.Grant)
	case orderLeave:
		calls.Leave(o.Group, o.Session)
	case orderSignal:
		if o.Signal == nil {
			err = errOrder
			break
		}
		err = calls.Signal(o.Group, o.Session, *o.Signal)
	case orderDisconnect:
		err = calls.Disconnect(o.Group, o.Call, o.Session)
	case orderUnpublish:
		err = calls.Unpublish(o.Group, o.Call, o.Stream, o.Until)
	case orderMute:
		err = calls.Mute(o.Group, o.Call, o.Session)
	case orderMuteAll:
		err = calls.MuteAll(o.Group, o.Call, o.Except)
	case orderSetMuteState:
		err = calls.SetMuteState(o.Group, o.Call, o.Active, o.Except)
	case orderEndCall:
		err = calls.EndCall(o.Group, o.Call)
	case orderEndGroup:
		calls.EndGroup(o.Group)
	case orderSessions:
		out.Sessions, out.Known = calls.Sessions(o.Group, o.Call)
	case orderCall:
		var info rtc.CallInfo
		info, out.Known = calls.Call(o.Group, o.Call)
		out.Calls = []rtc.CallInfo{info}
	case orderCalls:
		out.Calls = calls.Calls(o.Group)
	case orderRecord:
		if out.Record, out.Known = calls.Record(o.Group, o.Call); out.Known {
			out.Record.Trim(maxRecord)
		}
	case orderDrain:
		calls.Drain()
	case orderEndAll:
		calls.EndAll()
	default:
		err = errOrder
	}
	out.Refusal = refusalOf(err)
	return out
}

var errOrder = errors.New("order is not known")

// orderTime bounds how long an order may take. The other process answers within milliseconds, or is
// about to be given up.
const orderTime = 5 * time.Second

// ask gives an order and waits for what becomes of it.
func ask(l *handover.Link, o order) (outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), orderTime)
	defer cancel()
	body, err := l.Ask(ctx, frameOrder, encode(o))
	if err != nil {
		return outcome{}, err
	}
	var out outcome
	if err := json.Unmarshal(body, &out); err != nil {
		return outcome{}, err
	}
	return out, out.Refusal.err()
}

// encode never fails: all that is encoded here is plain data of ours.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// A refusal is an error of package rtc on its way to another process.
type refusal struct{ Text, Reason string }

// refusals are those that are compared with.
var refusals = []error{
	rtc.ErrNoSession, rtc.ErrNoCall, rtc.ErrNoStream, rtc.ErrDraining, rtc.ErrOtherCall, rtc.ErrCallEnded,
	rtc.ErrRole, rtc.ErrStopped,
}

func refusalOf(err error) *refusal {
	if err == nil {
		return nil
	}
	r := &refusal{Text: err.Error()}
	var named interface{ Reason() string }
	if errors.As(err, &named) {
		r.Reason = named.Reason()
	}
	return r
}

// err returns the error that was refused with.
func (r *refusal) err() error {
	if r == nil {
		return nil
	}
	for _, e := range refusals {
		if e.Error() == r.Text {
			return e
		}
	}
	if r.Reason == "" {
		return errors.New(r.Text)
	}
	return remoteRefusal{*r}
}

// remoteRefusal is the error of a limit in another process.
type remoteRefusal struct{ refusal }

func (r remoteRefusal) Error() string   { return r.Text }
func (r remoteRefusal) Reason() string  { return r.refusal.Reason }
func (r remoteRefusal) Is(t error) bool { return t == rtc.ErrLimit }
