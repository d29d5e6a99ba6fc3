//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rtcd/build/bench/endpoint"
	"rtcd/build/bench/servers"
)

// party is all endpoints of a scenario at one server, or what stands for them at a raw one.
type party struct {
	system    string
	server    meter
	endpoints []*endpoint.Endpoint
	sockets   []*endpoint.Socket
	sources   []*endpoint.Source
	receivers []int // of each source
	reading   bool
	stop      func()
}

// meter is what is measured of a process.
type meter interface {
	CPU() (time.Duration, error)
}

const (
	joinParallel = 8           // endpoints that join at a time
	joinTime     = time.Minute // that joins may take, after which something is wrong
)

// join brings all members into their rooms: those that publish first, so that there is something
// to be sent to those who come.
func join(ctx context.Context, system string, server servers.Server, rooms []servers.Room) (*party, error) {
	p := &party{system: system, server: server, stop: server.Stop}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	if err := server.Prepare(ctx, rooms); err != nil {
		return p, err
	}
	for _, publishers := range []bool{true, false} {
		var mu sync.Mutex
		var wg sync.WaitGroup
		var fault error
		slots := make(chan struct{}, joinParallel)
		for _, r := range rooms {
			for _, m := range r.Members {
				if len(m.Publish) > 0 != publishers {
					continue
				}
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					e, err := server.Endpoint(r, m)
					if err == nil {
						mu.Lock()
						p.add(e, len(r.Members)-1)
						mu.Unlock()
						err = server.Join(ctx, r.Name, e)
					}
					if err != nil {
						mu.Lock()
						fault = errors.Join(fault, err)
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		if fault != nil {
			return p, fault
		}
	}
	return p, nil
}

func (p *party) add(e *endpoint.Endpoint, receivers int) {
	p.endpoints = append(p.endpoints, e)
	p.sockets = append(p.sockets, e.Socket)
	for _, s := range e.Sources() {
		p.sources = append(p.sources, s)
		p.receivers = append(p.receivers, receivers)
	}
}

// raw returns the party of a raw server.
func raw(system string, r *servers.Raw) *party {
	return &party{system: system, server: r, sockets: r.Sockets, sources: r.Sources, receivers: r.Receivers, stop: r.Stop}
}

// close ends the server first, so that it is not busy with goodbyes.
func (p *party) close() {
	p.stop()
	var wg sync.WaitGroup
	for _, e := range p.endpoints {
		wg.Go(e.Close)
	}
	wg.Wait()
}

// drop makes the kernel drop what comes from now on.
func (p *party) drop() error {
	var err error
	for _, s := range p.sockets {
		err = errors.Join(err, s.DropRTP())
	}
	return err
}

// send makes the sources send, at their rates times a factor, until the function that it returns is
// called. That one returns what went wrong.
func (p *party) send(factor float64) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var fault error
	for i, s := range p.sources {
		fps := float64(s.Kind().FramesPerSecond) * factor
		wg.Go(func() {
			delay := time.Duration(float64(i) / float64(len(p.sources)) / fps * float64(time.Second))
			if err := s.Run(ctx, fps, delay); err != nil {
				mu.Lock()
				fault = errors.Join(fault, err)
				mu.Unlock()
			}
		})
	}
	return func() error {
		cancel()
		wg.Wait()
		return fault
	}
}

// due returns how many packets should have arrived so far.
func (p *party) due() uint64 {
	var n uint64
	for i, s := range p.sources {
		n += s.Sent() * uint64(p.receivers[i])
	}
	return n
}

// arrived returns how many packets the kernel has dropped at the receivers, or they have read.
func (p *party) arrived() (uint64, error) {
	if p.reading {
		n, _, _ := p.read()
		return n, nil
	}
	var n uint64
	for _, s := range p.sockets {
		d, err := s.Dropped()
		if err != nil {
			return 0, err
		}
		n += d
	}
	return n, nil
}

// forwarded returns what the server says to have forwarded.
func (p *party) forwarded(ctx context.Context) (uint64, error) {
	if s, ok := p.server.(servers.Server); ok {
		return s.Forwarded(ctx)
	}
	return 0, nil
}

// read returns what the endpoints have read so far.
func (p *party) read() (packets, bad, gaps uint64) {
	for _, e := range p.endpoints {
		packets += e.Received.Packets.Load()
		bad += e.Received.Bad.Load()
		gaps += e.Received.Gaps.Load()
	}
	return packets, bad, gaps
}

// sample is the state of a party at a moment.
type sample struct {
	at      time.Time
	cpu     time.Duration
	due     uint64
	arrived uint64
}

func (p *party) sample() (sample, error) {
	arrived, err := p.arrived()
	if err != nil {
		return sample{}, err
	}
	cpu, err := p.server.CPU()
	return sample{at: time.Now(), cpu: cpu, due: p.due(), arrived: arrived}, err
}

// checked is what came of checking all packets.
type checked struct{ packets, due, bad, gaps uint64 }

const (
	checkRate   = 6000 // packets a second that the endpoints can read beside a server
	steadyStep  = 500 * time.Millisecond
	steadyTries = 120
	drainTries  = 40
	drainStep   = 100 * time.Millisecond
)

// check has everything sent to everybody for a time and every packet decrypted and checked. Before
// that it waits until everything is forwarded: an estimate of what a receiver's link carries has
// to grow to what it is sent.
func (p *party) check(ctx context.Context, rate float64, d time.Duration) (checked, error) {
	factor := min(1, checkRate/rate)
	stop := p.send(factor)
	err := p.steady(ctx)
	if err != nil {
		return checked{}, errors.Join(err, stop())
	}
	if err := stop(); err != nil {
		return checked{}, err
	}
	p.drain()
	packets, bad, gaps := p.read()
	due := p.due()
	stop = p.send(factor)
	pause(ctx, d)
	if err := stop(); err != nil {
		return checked{}, err
	}
	p.drain()
	var c checked
	c.packets, c.bad, c.gaps = p.read()
	return checked{packets: c.packets - packets, due: p.due() - due, bad: c.bad - bad, gaps: c.gaps - gaps}, nil
}

// steady waits until all that is due arrives.
func (p *party) steady(ctx context.Context) error {
	var came, owed uint64
	packets, _, _ := p.read()
	due, good := p.due(), 0
	for range steadyTries {
		pause(ctx, steadyStep)
		if err := ctx.Err(); err != nil {
			return err
		}
		nowPackets, _, _ := p.read()
		nowDue := p.due()
		came, owed = nowPackets-packets, nowDue-due
		packets, due = nowPackets, nowDue
		if float64(came) < 0.97*float64(owed) {
			good = 0
			continue
		}
		if good++; good == 4 {
			return nil
		}
	}
	return fmt.Errorf("%s does not forward all that it is sent: %d of %d packets in the last half second", p.system, came, owed)
}

// drain waits until no more packets come.
func (p *party) drain() {
	last, _, _ := p.read()
	for range drainTries {
		time.Sleep(drainStep)
		now, _, _ := p.read()
		if now == last {
			return
		}
		last = now
	}
}

// pause waits for a time, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
