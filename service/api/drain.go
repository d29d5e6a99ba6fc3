package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// MaxDrainDeadline bounds how long an operator can give running calls, short of for ever.
const MaxDrainDeadline = 30 * 24 * time.Hour

// A Drainer takes the server out of service, and back.
type Drainer interface {
	DrainState() DrainState
	// Drain refuses new calls from now on. While that is so already, it changes what is asked for.
	Drain(DrainRequest) (DrainState, error)
	// Undrain takes new calls again. It is refused once the server has been told to end by a signal.
	Undrain() (DrainState, error)
}

// A DrainRequest says how to drain. What is nil stays as it is or, if the drain begins, as configured.
type DrainRequest struct {
	Deadline *time.Duration // from now, when the calls left are ended; 0: never
	Exit     *bool          // end the server when the last call has ended
}

// DrainState is how far a drain is.
type DrainState struct {
	Draining bool
	Exit     bool // the server ends with the last call, or at the deadline
	Signal   bool // of the process made it drain
	Deadline time.Time
	Sessions int
	Calls    int
}

func hasDrainer(h *handler) bool { return h.Drainer != nil }

// readDrain serves GET /admin/drain.
func (x *exchange) readDrain() { x.drained(x.h.Drainer.DrainState(), nil) }

// startDrain serves POST /admin/drain.
func (x *exchange) startDrain() {
	var r DrainRequest
	var exit bool
	exits := boolField("exit", &exit)
	setExit := exits.set
	exits.set = func(v any) *problem { r.Exit = &exit; return setExit(v) }
	if !x.decode(spanField("deadline", &r.Deadline, MaxDrainDeadline), exits) {
		return
	}
	x.drained(x.h.Drainer.Drain(r))
}

// endDrain serves DELETE /admin/drain.
func (x *exchange) endDrain() {
	if x.decode() {
		x.drained(x.h.Drainer.Undrain())
	}
}

func (x *exchange) drained(st DrainState, err error) {
	if err != nil {
		x.fail(err)
		return
	}
	x.write(http.StatusOK, drainJSON(st))
}

type drainAnswer struct {
	Draining bool    `json:"draining"`
	Sessions int     `json:"sessions"`
	Calls    int     `json:"calls"`
	Deadline *string `json:"deadline"` // null: none
	Exit     bool    `json:"exit"`
	Signal   bool    `json:"signal"`
}

func drainJSON(st DrainState) drainAnswer {
	a := drainAnswer{Draining: st.Draining, Sessions: st.Sessions, Calls: st.Calls, Exit: st.Exit, Signal: st.Signal}
	if !st.Deadline.IsZero() {
		a.Deadline = new(st.Deadline.UTC().Format(time.RFC3339Nano))
	}
	return a
}

// maxSpanBytes bounds a duration that is written as text.
const maxSpanBytes = 32

// spanField is a time from 0 to high: a number of seconds, whole or not, or a text such as "90m".
func spanField(name string, into **time.Duration, high time.Duration) field {
	return field{name: name, set: func(v any) *problem {
		var text string
		switch v := v.(type) {
		case json.Number:
			if strings.ContainsAny(v.String(), "eE") {
				return wrongType(name, "a number of seconds without exponent")
			}
			text = v.String() + "s"
		case string:
			text = v
		default:
			return wrongType(name, `a number of seconds or a duration such as "90m"`)
		}
		if len(text) > maxSpanBytes {
			return outOfRange(name, "that short")
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > high {
			return outOfRange(name, fmt.Sprintf("from 0 to %v", high))
		}
		*into = &d
		return nil
	}}
}
