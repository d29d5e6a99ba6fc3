//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"syscall"
	"time"

	"rtcd/build/bench/endpoint"
	"rtcd/build/bench/report"
	"rtcd/build/bench/servers"
)

// A ramp has rooms with one who sends to a number of others, and a room of two whose packets are
// timed. Packets have the size of voices, at rates that grow until the server needs most of a core.
const (
	rampRooms  = 5
	rampFan    = 30
	rampFull   = 0.8   // share of a core at which the ramp ends
	rampLost   = 0.001 // share of packets whose loss ends it
	rampFactor = 2
	rampRate   = 100 // packets a second of each sender, at first
	rampMost   = 12_800
	timedRate  = 100 // packets a second that are timed
)

// ramps drives the servers up to their limit.
func (b *bench) ramps(ctx context.Context, r *report.Report) error {
	for _, system := range []string{report.Ours, report.Plain} {
		steps, err := b.rampUp(ctx, system)
		if err != nil {
			return fmt.Errorf("%s: %w", system, err)
		}
		r.Ramp = append(r.Ramp, steps...)
	}
	return nil
}

func (b *bench) rampUp(ctx context.Context, system string) ([]report.Ramp, error) {
	load, timed := rooms(rampRooms, rampFan+1, 1, voice), room(rampRooms, 2, 1, voice)
	for i := range timed.Members {
		timed.Members[i].Stamps = true
	}
	p, err := b.start(ctx, system, append(load, timed))
	if p != nil {
		defer func() { p.close() }()
	}
	if err != nil {
		return nil, err
	}
	// Those of the timed room are taken out of the party: their sockets read.
	var sender, receiver *endpoint.Endpoint
	loaded := &party{system: system, server: p.server}
	for _, e := range p.endpoints {
		switch e.ID {
		case timed.Members[0].ID:
			sender = e
		case timed.Members[1].ID:
			receiver = e
		default:
			loaded.add(e, rampFan)
		}
	}
	if _, err := loaded.check(ctx, float64(rampRooms*rampFan*voice.PacketsPerSecond()), b.check); err != nil {
		return nil, err
	}
	if err := loaded.drop(); err != nil {
		return nil, err
	}
	idle, took, err := measureCPU(ctx, p.server, b.ramp)
	if err != nil {
		return nil, err
	}
	idleShare := idle.Seconds() / took.Seconds()
	var out []report.Ramp
	for rate := rampRate; rate <= rampMost; rate *= rampFactor {
		step, err := b.rampStep(ctx, loaded, sender, receiver, float64(rate), idleShare)
		if err != nil {
			return nil, err
		}
		step.System = system
		b.say("%-13s %7.0f packets/s: %.2f of a core (the load %.2f), %.2f µs each, %.3f %% lost; transit p50 %.3f p99 %.3f ms, bare %.3f %.3f",
			system, step.Rate, step.Core, step.Generator, step.Net, 100*(1-step.Delivered), step.P50, step.P99, step.BareP50, step.BareP99)
		out = append(out, step)
		if step.Core >= rampFull || step.Delivered < 1-rampLost {
			break
		}
	}
	return out, nil
}

// rampStep measures one rate.
func (b *bench) rampStep(ctx context.Context, p *party, sender, receiver *endpoint.Endpoint, rate, idle float64) (report.Ramp, error) {
	bare, err := newBare()
	if err != nil {
		return report.Ramp{}, err
	}
	defer bare.close()
	stop := p.send(rate / float64(voice.FramesPerSecond))
	timed := &party{system: p.system, sources: sender.Sources(), receivers: []int{1}}
	stopTimed := timed.send(timedRate / float64(voice.FramesPerSecond))
	pause(ctx, b.warm)
	bare.start()
	sender.Socket.Stamps()
	receiver.Socket.Stamps()
	own := ownCPU()
	before, err := p.sample()
	if err != nil {
		return report.Ramp{}, err
	}
	pause(ctx, b.ramp)
	after, err := p.sample()
	if err != nil {
		return report.Ramp{}, err
	}
	own = ownCPU() - own
	direct := bare.stop()
	transit := match(sender.Socket.Stamps(), receiver.Socket.Stamps())
	for _, f := range []func() error{stop, stopTimed} {
		if err := f(); err != nil {
			return report.Ramp{}, err
		}
	}
	seconds := after.at.Sub(before.at).Seconds()
	cpu := (after.cpu - before.cpu).Seconds()
	packets := float64(after.arrived - before.arrived)
	return report.Ramp{
		Rate: float64(after.due-before.due) / seconds, Delivered: min(1, packets/float64(after.due-before.due)),
		Core: cpu / seconds, Generator: own.Seconds() / seconds, Net: (cpu - idle*seconds) * 1e6 / packets,
		P50: quantile(transit, 0.5), P99: quantile(transit, 0.99), Max: quantile(transit, 1),
		BareP50: quantile(direct, 0.5), BareP99: quantile(direct, 0.99), Measured: len(transit),
		Load: loadAverage(),
	}, ctx.Err()
}

// match returns how long packets took, in milliseconds. A server may number them anew, but leaves
// no gap: so the distance of the numbers is one that most agree on.
func match(sent, came []endpoint.Stamp) []float64 {
	if len(sent) == 0 || len(came) == 0 {
		return nil
	}
	at := make(map[uint16]time.Time, len(sent))
	for _, s := range sent {
		at[s.Sequence] = s.At
	}
	// What was under way at the beginning makes the first few numbers of one list missing in the
	// other, so the right distance is the one with the shortest way that is not negative.
	best, least := uint16(0), math.Inf(1)
	for shift := range 5 {
		offset := came[0].Sequence - sent[0].Sequence + uint16(shift) - 2
		var sum float64
		n := 0
		for _, c := range came {
			if t, ok := at[c.Sequence-offset]; ok {
				d := milliseconds(c.At.Sub(t))
				if d < -0.05 {
					sum = math.Inf(1)
				}
				sum += d
				n++
			}
		}
		if n > 0 && sum/float64(n) < least {
			best, least = offset, sum/float64(n)
		}
	}
	var out []float64
	for _, c := range came {
		if t, ok := at[c.Sequence-best]; ok {
			out = append(out, milliseconds(c.At.Sub(t)))
		}
	}
	return out
}

// bare is two sockets without a server between them.
type bare struct {
	from, to *endpoint.Socket
	halt     func() error
	read     chan struct{}
}

func newBare() (*bare, error) {
	from, err := endpoint.NewSocket(true)
	if err != nil {
		return nil, err
	}
	to, err := endpoint.NewSocket(true)
	if err != nil {
		_ = from.Close()
		return nil, err
	}
	b := &bare{from: from, to: to, read: make(chan struct{})}
	go func() {
		defer close(b.read)
		buf := make([]byte, 1600)
		for {
			if _, _, err := to.ReadFromAddrPort(buf); err != nil {
				return
			}
		}
	}()
	return b, nil
}

func (b *bare) start() {
	p := &party{sources: []*endpoint.Source{endpoint.NewRawSource(voice, b.from, b.to.Addr())}, receivers: []int{1}}
	b.halt = p.send(timedRate / float64(voice.FramesPerSecond))
}

// stop returns how long the packets took, in milliseconds.
func (b *bare) stop() []float64 {
	_ = b.halt()
	return match(b.from.Stamps(), b.to.Stamps())
}

func (b *bare) close() {
	_ = b.from.Close()
	_ = b.to.Close()
	<-b.read
}

// ownCPU returns the time that this process has run.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var _ servers.Server = (*servers.Rtcd)(nil)
