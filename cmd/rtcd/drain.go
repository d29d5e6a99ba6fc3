package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rtcd/service/api"
)

const drainUsage = `usage:
  rtcd drain -admin URL [-deadline D] [-stay]  take no new calls; end with the last call, or after D
  rtcd drain -admin URL -undo                  take new calls again
  rtcd drain -admin URL -state                 say how far it is
Running calls go on, with new participants, until the deadline; then they are ended. Without -deadline
it is that of the server's configuration, or, if it drains already, as it was; -deadline 0 is none.
`

// drainFlags are those of "rtcd drain".
type drainFlags struct {
	admin    adminFlags
	deadline time.Duration
	stay     bool
	undo     bool
	state    bool
	asJSON   bool
}

// A drainState is the answer of /admin/drain.
type drainState struct {
	Draining bool       `json:"draining"`
	Sessions int        `json:"sessions"`
	Calls    int        `json:"calls"`
	Deadline *time.Time `json:"deadline"`
	Exit     bool       `json:"exit"`
	Signal   bool       `json:"signal"`
}

// String is what a state is to people.
func (s drainState) String() string {
	if !s.Draining {
		return fmt.Sprintf("not draining: new calls are taken; %d sessions in %d calls", s.Sessions, s.Calls)
	}
	end, deadline := "stays", "without deadline"
	if s.Exit {
		end = "ends with the last call"
	}
	if s.Deadline != nil {
		deadline = "calls are ended at " + s.Deadline.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("draining: no new calls; %d sessions in %d calls are left; %s; the server %s", s.Sessions, s.Calls, deadline, end)
}

// drain is "rtcd drain".
func (c *cli) drain(args []string) int {
	flags := flag.NewFlagSet("rtcd drain", flag.ContinueOnError)
	var f drainFlags
	f.admin.register(flags)
	flags.DurationVar(&f.deadline, "deadline", 0, "how long running calls may go on, such as 90m; 0 = no limit")
	flags.BoolVar(&f.stay, "stay", false, "do not end the server when it has drained")
	flags.BoolVar(&f.undo, "undo", false, "take new calls again")
	flags.BoolVar(&f.state, "state", false, "change nothing")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	rest, status, ok := c.parse(flags, drainUsage, args)
	if !ok {
		return status
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case len(rest) != 0:
		return c.misuse(drainUsage, "drain: unknown argument %q", rest[0])
	case f.admin.url == "":
		return c.misuse(drainUsage, "drain: -admin says which server")
	case f.undo && f.state, (f.undo || f.state) && (f.stay || given["deadline"]):
		return c.misuse(drainUsage, "drain: -undo and -state go with nothing else")
	case f.deadline < 0 || f.deadline > api.MaxDrainDeadline:
		return c.misuse(drainUsage, "drain: -deadline %v: must be from 0 to %v", f.deadline, api.MaxDrainDeadline)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	st, err := c.askDrain(ctx, &f, given)
	if err != nil {
		return c.end(fmt.Errorf("drain: %w", err))
	}
	if f.asJSON {
		return c.end(json.NewEncoder(c.stdout).Encode(st))
	}
	_, err = fmt.Fprintln(c.stdout, st)
	return c.end(err)
}

func (c *cli) askDrain(ctx context.Context, f *drainFlags, given map[string]bool) (st drainState, err error) {
	cfg, err := c.load()
	if err != nil {
		return st, err
	}
	to, err := f.admin.connect(cfg, c.stderr)
	if err != nil {
		return st, err
	}
	method, body := http.MethodPost, any(nil)
	switch {
	case f.undo:
		method = http.MethodDelete
	case f.state:
		method = http.MethodGet
	default:
		want := make(map[string]any)
		if given["deadline"] {
			want["deadline"] = f.deadline.String()
		}
		if given["stay"] {
			want["exit"] = !f.stay
		}
		body = want
	}
	err = to.call(ctx, method, "/admin/drain", body, &st)
	return st, errors.Join(err, to.Close())
}
