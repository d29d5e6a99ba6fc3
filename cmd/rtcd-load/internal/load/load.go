// Package load carries a load run out: it joins the people of a scenario to their rooms, has them
// send, come and go, and measures.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/client"
	"rtcd/cmd/rtcd-load/internal/endpoint"
	"rtcd/cmd/rtcd-load/internal/link"
	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/cmd/rtcd-load/internal/probe"
	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/cmd/rtcd-load/internal/scenario"
	"rtcd/cmd/rtcd-load/internal/stats"
)

const (
	joinTimeout    = 30 * time.Second // for each person, and again for each publication
	requestTimeout = 10 * time.Second
	leaveTimeout   = 10 * time.Second // for all of them together
	leaveAtOnce    = 16
	maxErrors      = 10
)

// Options say what to run, against what.
type Options struct {
	Scenario *scenario.Scenario
	Client   client.Config
	// Unregister makes the run end with unregistering the client.
	Unregister bool
	// Channel makes the server's offers go over the data channel rather than the backend.
	Channel bool
	Server  *probe.Server
	Local   net.IP   // local address to use; nil: all
	Sources []net.IP // local addresses to use in turn instead
	// Progress is called about once a second; it may be nil.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Phase   string // joining, settling, measuring, leaving
	Left    time.Duration
	Planned int
	Failed  int
	Second  report.Second
}

// A run is what its people have in common.
type run struct {
	o      Options
	began  time.Duration // by media.Now
	id     uint32
	conn   *client.Conn
	ledger *media.Ledger
	pacers []*media.Pacer
	late   stats.Histogram
	ports  link.Ports
	counts link.Counts
	apis   map[apiKey]*endpoint.API

	join, firstMedia stats.Histogram

	measuring chan struct{} // closed when that begins
	over      chan struct{} // closed when nothing more is to be sent
	people    atomic.Int64  // there now
	failed    atomic.Int64
	dropped   atomic.Int64

	mu       sync.Mutex
	sessions map[string]*person
	faults   []string
}

// apiKey says whose endpoints can have one API in common.
type apiKey struct {
	video    bool
	up, down scenario.Impairment
}

// Run runs a scenario until its end or until ctx is done, which ends it early but in order. An error
// means that it could not run at all.
func Run(ctx context.Context, o Options) (*report.Result, error) {
	r := &run{
		o: o, id: rand.Uint32(), apis: make(map[apiKey]*endpoint.API), sessions: make(map[string]*person),
		measuring: make(chan struct{}), over: make(chan struct{}),
	}
	r.ledger = media.NewLedger(r.id)
	c, err := client.New(o.Client)
	if err != nil {
		return nil, err
	}
	defer c.CloseIdleConnections()
	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	version, err := c.Version(requestCtx)
	if err != nil {
		return nil, err
	}
	before, err := o.Server.Sample(requestCtx)
	if err != nil {
		return nil, err
	}
	// The connection outlives ctx, so that the run can end in order.
	if r.conn, err = c.Connect(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	if o.Unregister {
		defer func() {
			endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
			defer cancel()
			_ = c.Unregister(endCtx) // the server forgets nothing that matters if it does not work
		}()
	}
	// Background work ends in this order: people, then what sends and delays for them.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(r.events)
	defer func() { _ = r.conn.Close() }()
	if err := r.prepare(background, &wg); err != nil {
		return nil, err
	}
	r.began = media.Now()
	started := time.Now()
	result := r.carryOut(ctx, before)
	result.Started, result.Server, result.Version = started, o.Client.URL, version.BuildVersion
	return result, nil
}

// prepare makes what the people have in common and starts what works for them.
func (r *run) prepare(ctx context.Context, wg *sync.WaitGroup) error {
	sources := &link.Sources{Addresses: r.o.Sources}
	var keep func(net.IP) bool
	if r.o.Local != nil {
		keep = r.o.Local.Equal
	}
	for range max(runtime.GOMAXPROCS(0), 1) {
		p := media.NewPacer(&r.late)
		r.pacers = append(r.pacers, p)
		wg.Go(func() { p.Run(ctx) })
	}
	for shape := range r.o.Scenario.Rooms {
		key := r.key(shape)
		if r.apis[key] != nil {
			continue
		}
		network, err := link.New(impairment(key.up), impairment(key.down), &r.counts, &r.ports, sources)
		if err != nil {
			return fmt.Errorf("open network: %w", err)
		}
		wg.Go(func() { network.Run(ctx) })
		api, err := endpoint.NewAPI(endpoint.APIConfig{Video: key.video, Net: network, Keep: keep})
		if err != nil {
			return err
		}
		r.apis[key] = api
	}
	return nil
}

func (r *run) key(shape int) apiKey {
	up, down := r.o.Scenario.Impairments(shape)
	return apiKey{video: r.o.Scenario.Rooms[shape].HasVideo(), up: up, down: down}
}

func impairment(i scenario.Impairment) link.Impairment {
	return link.Impairment{Loss: i.Loss, Delay: time.Duration(i.Delay), Jitter: time.Duration(i.Jitter)}
}

// drain is how long what is on its way may take: the impairments' delays, and some.
func (r *run) drain() time.Duration {
	longest := time.Second
	for key := range r.apis {
		sum := time.Duration(key.up.Delay + key.up.Jitter + key.down.Delay + key.down.Jitter)
		longest = max(longest, time.Second+sum)
	}
	return longest
}

// events hands on what the server says until the connection ends.
func (r *run) events() {
	for ev := range r.conn.Events() {
		switch ev := ev.(type) {
		case client.Description:
			r.signal(ev.SessionID, ev)
		case client.Candidate:
			r.signal(ev.SessionID, ev)
		case client.Closed:
			r.mu.Lock()
			p := r.sessions[ev.SessionID]
			r.mu.Unlock()
			if p != nil {
				p.closedOnce.Do(func() { close(p.closed) })
			}
		}
	}
}

func (r *run) signal(session string, ev client.Event) {
	r.mu.Lock()
	p := r.sessions[session]
	r.mu.Unlock()
	if p != nil {
		p.endpoint.Signal(ev)
	}
}

// fault keeps an error for the report, the first few of those that differ.
func (r *run) fault(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if text := err.Error(); len(r.faults) < maxErrors && !slices.Contains(r.faults, text) {
		r.faults = append(r.faults, text)
	}
}

// carryOut goes through the phases of the run.
func (r *run) carryOut(ctx context.Context, before probe.Sample) *report.Result {
	s := r.o.Scenario
	var initial, all sync.WaitGroup
	var everybody []*person
	for i, p := range s.Plan() {
		one := r.person(i, p)
		everybody = append(everybody, one)
		if !p.Late {
			initial.Add(1)
		}
		all.Go(func() {
			one.live(ctx, sync.OnceFunc(func() {
				if !p.Late {
					initial.Done()
				}
			}))
		})
	}
	sampler := newSampler(r, before, len(everybody))
	defer sampler.stop()
	joined := make(chan struct{})
	go func() {
		initial.Wait()
		close(joined)
	}()

	sampler.until(ctx, "joining", joined, 0)
	sampler.until(ctx, "settling", nil, time.Duration(s.Settle))
	sampler.begin()
	close(r.measuring)
	sampler.until(ctx, "measuring", nil, time.Duration(s.Duration))
	sampler.end()
	close(r.over)
	all.Wait() // all senders have stopped, and everybody has ended as ctx or over say
	<-joined
	sampler.until(context.WithoutCancel(ctx), "draining", nil, r.drain())
	outcomes := r.outcomes(everybody)
	sessionsEnd := r.leave(everybody)
	return r.result(sampler, everybody, outcomes, sessionsEnd, errors.Is(ctx.Err(), context.Canceled))
}
