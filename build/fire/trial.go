//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

// A scenario is one fault: what is done, what has to hold, and which promises it is about.
type scenario struct {
	id        string // of the fault table, such as "F11"
	title     string
	criterion string // what has to hold, in words
	promises  []string
	run       func(ctx context.Context, t *trial) error
}

// A trial is one run of a scenario. Its methods are for the goroutine of the scenario.
type trial struct {
	quick  bool
	ci     bool   // even less than quick
	binary string // of rtcd
	seed   uint64
	share  float64       // of what a full run has
	soak   time.Duration // how long the soak is; 0: as lasting says
	rand   *rand.Rand
	log    io.Writer // progress, for people
	out    string    // folder for logs of servers; "": none is kept

	result  result
	late    lateness
	field   *field.Field
	cleanup []func()
	servers int // made
}

// result is what a scenario came to: the JSON line.
type result struct {
	Scenario   string   `json:"scenario"`
	Title      string   `json:"title"`
	Verdict    string   `json:"verdict"` // pass, fail, skip, error
	Criterion  string   `json:"criterion"`
	Shortfalls []string `json:"shortfalls,omitempty"`
	NotJudged  []string `json:"not_judged,omitempty"` // the machine was too busy to tell
	LateMs     int64    `json:"late_ms"`              // the longest that the harness was woken late
	Count      int      `json:"count"`                // of faults that were injected
	load.Figures
	More     map[string]any  `json:"more,omitempty"` // figures of the scenario's own
	Promises []promiseResult `json:"promises,omitempty"`
	Quick    bool            `json:"quick"`
	Share    float64         `json:"share,omitempty"` // of the counts of a full run, if it is not all
	Seed     uint64          `json:"seed"`
	Took     float64         `json:"took_s"`
	Error    string          `json:"error,omitempty"`
}

// promiseResult is what a scenario says about a promise.
type promiseResult struct {
	ID     string `json:"id"`
	Count  int    `json:"count"` // of what Of says
	Of     string `json:"of"`
	Figure string `json:"figure"`
	Kept   bool   `json:"kept"`
	// NotJudged says why a part of it was not judged.
	NotJudged string `json:"not_judged,omitempty"`
}

// The verdicts.
const (
	pass  = "pass"
	fail  = "fail"
	skip  = "skip"
	fault = "error" // of the harness, or of what it needs: nothing was shown
)

// play runs a scenario to its end, whatever becomes of it.
func play(ctx context.Context, s scenario, t *trial) result {
	began := time.Now()
	t.result = result{
		Scenario: s.id, Title: s.title, Criterion: s.criterion, Quick: t.quick, Share: t.part(), Seed: t.seed,
		Verdict: pass, More: make(map[string]any), Figures: load.Figures{RecoverMs: -1},
	}
	t.rand = rand.New(rand.NewPCG(t.seed, 0))
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go t.late.watch(watching)
	err := t.protected(ctx, s)
	for _, f := range slices.Backward(t.cleanup) {
		f()
	}
	if t.field != nil {
		if cerr := t.field.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
		}
	}
	r := &t.result
	r.Took = time.Since(began).Seconds()
	worst, _ := t.late.read()
	r.LateMs = worst.Milliseconds()
	switch {
	case errors.Is(err, field.ErrSkip):
		r.Verdict, r.Error = skip, err.Error()
	case err != nil:
		r.Verdict, r.Error = fault, err.Error()
	case r.Panics > 0:
		t.shortfall("the server panicked %d times", r.Panics)
		fallthrough
	case len(r.Shortfalls) > 0:
		r.Verdict = fail
	}
	return *r
}

// protected makes an error of a panic of ours, so that what was made is still taken away.
func (t *trial) protected(ctx context.Context, s scenario) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the harness panicked: %v", p)
		}
	}()
	return s.run(ctx, t)
}

// say tells people how it goes.
func (t *trial) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.log, "    "+format+"\n", args...)
}

// after has f called when the scenario is over, the last one first.
func (t *trial) after(f func()) { t.cleanup = append(t.cleanup, f) }

// shortfall notes that something did not hold.
func (t *trial) shortfall(format string, args ...any) {
	t.result.Shortfalls = append(t.result.Shortfalls, fmt.Sprintf(format, args...))
}

// expect notes a shortfall unless ok, and returns ok.
func (t *trial) expect(ok bool, format string, args ...any) bool {
	if !ok {
		t.shortfall(format, args...)
	}
	return ok
}

// promise says what was found about a promise.
func (t *trial) promise(id string, kept bool, count int, of, format string, args ...any) {
	p := promiseResult{ID: id, Count: count, Of: of, Figure: fmt.Sprintf(format, args...), Kept: kept}
	if kept && len(t.result.NotJudged) > 0 {
		p.NotJudged = t.result.NotJudged[0]
	}
	t.result.Promises = append(t.result.Promises, p)
}

// part is the share of a full run's counts, 0 if it is all of them, or none as with -quick.
func (t *trial) part() float64 {
	if t.quick || t.share == 1 {
		return 0
	}
	return t.share
}

// of chooses between the count of a quick and of a full run.
func (t *trial) of(quick, full int) int {
	if t.quick {
		return quick
	}
	return max(quick, int(float64(full)*t.share))
}

// least is of with a third count, for the checks of each change.
func (t *trial) least(ci, quick, full int) int {
	if t.ci {
		return ci
	}
	return t.of(quick, full)
}

// briefly is least for times.
func (t *trial) briefly(ci, quick, full time.Duration) time.Duration {
	if t.ci {
		return ci
	}
	return t.lasting(quick, full)
}

// lasting is of for times.
func (t *trial) lasting(quick, full time.Duration) time.Duration {
	if t.quick {
		return quick
	}
	return max(quick, time.Duration(float64(full)*t.share))
}

// ground makes the field of a scenario.
func (t *trial) ground(hosts ...string) (*field.Field, error) {
	f, err := field.New(hosts...)
	if err != nil {
		return nil, err
	}
	t.field = f
	return f, nil
}

// server makes a server on the host srv that is not running. It is killed in the end.
func (t *trial) server(change func(*load.ServerConfig)) (*load.Server, error) {
	cfg := load.ServerConfig{Binary: t.binary, Host: t.field.Host("srv"), Dir: filepath.Join(t.field.Dir, "rtcd")}
	if change != nil {
		change(&cfg)
	}
	s, err := load.NewServer(cfg)
	if err != nil {
		return nil, err
	}
	t.servers++
	kept := filepath.Join(t.out, fmt.Sprintf("%s-%d.log", t.result.Scenario, t.servers))
	t.after(func() {
		s.Kill()
		if t.out != "" {
			if err := os.WriteFile(kept, []byte(s.LogTail(64<<20)), 0o600); err != nil {
				t.say("keep the log: %v", err)
			}
		}
	})
	return s, nil
}

// steadyHosts are those of the steady load, with others behind them.
func steadyHosts(others ...string) []string {
	return append([]string{"srv", "be1", "be2", "cli1", "cli2", "cli3"}, others...)
}

// started is the ground with the usual hosts, and more, on which the steady load runs as it is.
func (t *trial) started(ctx context.Context, more ...string) (*field.Field, *load.Party, error) {
	f, err := t.ground(steadyHosts(more...)...)
	if err != nil {
		return nil, nil, err
	}
	p, err := t.steady(ctx, nil, nil)
	return f, p, err
}

// steady starts a server and the steady load, on the hosts of steadyHosts.
func (t *trial) steady(ctx context.Context, server func(*load.ServerConfig), change func(*load.PartyConfig)) (*load.Party, error) {
	s, err := t.server(server)
	if err != nil {
		return nil, err
	}
	if err := s.Run(ctx); err != nil {
		return nil, err
	}
	cfg := load.PartyConfig{Calls: t.of(2, 4), People: t.least(3, 4, 6), Screen: load.Screen{Bitrate: 300_000, FPS: 10}}
	for _, name := range []string{"be1", "be2"} {
		cfg.Backends = append(cfg.Backends, t.field.Host(name))
	}
	for _, name := range []string{"cli1", "cli2", "cli3"} {
		cfg.Clients = append(cfg.Clients, t.field.Host(name))
	}
	if change != nil {
		change(&cfg)
	}
	p, err := load.NewParty(ctx, s, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w; the log ends with %s", err, s.LogTail(600))
	}
	t.after(p.Close)
	t.say("%d people in %d calls", len(p.People), cfg.Calls)
	return p, nil
}

// wait lets the load go on for a while.
func (t *trial) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unbroken expects that no call broke and no session ended.
func (t *trial) unbroken(f load.Figures) bool {
	a := t.expect(f.CallsBroken == 0, "%d calls broken", f.CallsBroken)
	b := t.expect(f.SessionsClosed == 0, "%d sessions closed", f.SessionsClosed)
	c := t.expect(f.PacketsBad == 0, "%d packets were not as they were sent", f.PacketsBad)
	return a && b && c && f.Panics == 0
}

// lossless expects that the server lost at most a share of the packets. What sockets of the harness
// dropped, because it was too slow to read them, may have been any of those that are missing.
func (t *trial) lossless(f load.Figures, share float64) bool {
	most := share * float64(f.PacketsOwed)
	if float64(f.PacketsLost) > most && float64(f.PacketsLost-f.ClientOverflow) <= most {
		t.notJudged("%d of %d packets were lost, while sockets of the harness dropped %d", f.PacketsLost, f.PacketsOwed, f.ClientOverflow)
		return true
	}
	if worst, _ := t.late.read(); float64(f.PacketsLost) > most && worst > 100*time.Millisecond &&
		float64(f.PacketsLost-f.ClientOverflow-f.ServerOverflow) <= most {
		t.notJudged("%d of %d packets were lost, while sockets overflowed by %d", f.PacketsLost, f.PacketsOwed, f.ClientOverflow+f.ServerOverflow)
		return true
	}
	return t.expect(float64(f.PacketsLost) <= most,
		"the server lost %d of %d packets, more than %.2f %%; sockets overflowed by %d at the server, %d at endpoints",
		f.PacketsLost, f.PacketsOwed, 100*share, f.ServerOverflow, f.ClientOverflow)
}

// leaveIdle has everybody leave and notes what stays behind.
func (t *trial) leaveIdle(ctx context.Context, p *load.Party) error {
	if err := p.Empty(); err != nil {
		return err
	}
	goroutines, files, resident, err := p.Idle(ctx, t.lasting(10*time.Second, 30*time.Second))
	if err != nil {
		return err
	}
	f := &t.result.Figures
	f.GoroutineDelta, f.FileDelta, f.ResidentDelta = goroutines, files, resident
	t.expect(goroutines <= 2, "%d goroutines stay behind", goroutines)
	t.expect(files <= 2, "%d descriptors stay behind", files)
	return nil
}

// percentile returns the p-th percentile of some durations; it sorts them.
func percentile(d []time.Duration, p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(p/100*float64(len(d))))]
}

// worst takes figures into the result: counts add up, of times the longest stays.
func (t *trial) worst(f load.Figures) {
	r := &t.result.Figures
	r.CallsBroken += f.CallsBroken
	r.SessionsClosed += f.SessionsClosed
	r.PacketsOwed += f.PacketsOwed
	r.PacketsLost += f.PacketsLost
	r.ServerOverflow += f.ServerOverflow
	r.ClientOverflow += f.ClientOverflow
	r.PacketsTwice += f.PacketsTwice
	r.PacketsBad += f.PacketsBad
	r.VideoMissing += f.VideoMissing
	r.FramesLost += f.FramesLost
	r.FrozenMs = max(r.FrozenMs, f.FrozenMs)
	r.GapMsMax = max(r.GapMsMax, f.GapMsMax)
	r.RecoverMs = max(r.RecoverMs, f.RecoverMs)
	r.ResidentDelta = max(r.ResidentDelta, f.ResidentDelta)
	r.GoroutineDelta = max(r.GoroutineDelta, f.GoroutineDelta)
	r.FileDelta = max(r.FileDelta, f.FileDelta)
	r.LogLines += f.LogLines
	r.Panics += f.Panics
	r.CPU = max(r.CPU, f.CPU)
	r.Seconds += f.Seconds
	if r.Seconds > 0 {
		r.LogLinesPerS = float64(r.LogLines) / r.Seconds
	}
}

// keepHeap writes a profile of the server's heap into the folder of logs, if there is one.
func (t *trial) keepHeap(ctx context.Context, s *load.Server, name string) error {
	if t.out == "" {
		return nil
	}
	b, err := s.HeapProfile(ctx)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.out, t.result.Scenario+"-"+name+".pprof"), b, 0o600)
}
