//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"rtcd/build/bench/endpoint"
	"rtcd/build/bench/report"
)

// A ramp has rooms with one who sends to a number of others, and a room of two whose packets are
// timed. Packets have the size of voices, at rates that grow until the server needs most of a core.
const (
	rampRooms = 8
	rampFan   = 30
	rampFull  = 0.9   // share of a core at which the ramp ends
	rampLost  = 0.001 // share of packets whose loss ends it
	timedRate = 100   // packets a second that are timed
)

// rampRates are packets a second of each sender. Our server takes no more than 3,000 of a session.
var rampRates = []int{50, 100, 200, 400, 800, 1200, 1600, 2000, 2400, 2900}

// ramps drives the servers up to their limit, and bare sockets to the same rates.
func (b *bench) ramps(ctx context.Context, r *report.Report) error {
	for _, system := range []string{report.Ours, report.Plain, report.Sendto, report.GSO} {
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
	bare := system == report.Sendto || system == report.GSO
	if !bare {
		load = append(load, timed)
	}
	p, err := b.start(ctx, system, load)
	if p != nil {
		defer func() { p.close() }()
	}
	if err != nil {
		return nil, err
	}
	loaded, idleShare := p, 0.0
	var sender, receiver *endpoint.Endpoint
	if !bare {
		// Those of the timed room are taken out of the party: their sockets read.
		loaded = &party{system: system, server: p.server}
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
		idleShare = idle.Seconds() / took.Seconds()
	}
	var out []report.Ramp
	for _, rate := range rampRates {
		step, err := b.rampStep(ctx, loaded, sender, receiver, float64(rate), idleShare)
		if err != nil {
			return nil, err
		}
		b.say("%-13s %7.0f packets/s: %.2f of a core (the load %.2f), %.2f µs each, %.3f %% lost; transit p50 %.3f p99 %.3f ms, bare %.3f %.3f",
			system, step.Rate, step.Core, step.Generator, step.Net, 100*(1-step.Delivered), step.P50, step.P99, step.BareP50, step.BareP99)
		out = append(out, step)
		if step.Core >= rampFull || step.Delivered < 1-rampLost {
			break
		}
	}
	return out, nil
}

// rampStep measures one rate. Without a sender nothing is timed.
func (b *bench) rampStep(ctx context.Context, p *party, sender, receiver *endpoint.Endpoint, rate, idle float64) (report.Ramp, error) {
	stops := []func() error{p.send(rate / float64(voice.FramesPerSecond))}
	var direct *bare
	if sender != nil {
		var err error
		if direct, err = newBare(); err != nil {
			return report.Ramp{}, err
		}
		defer direct.close()
		timed := &party{sources: sender.Sources(), receivers: []int{1}}
		stops = append(stops, timed.send(timedRate/float64(voice.FramesPerSecond)), direct.send())
	}
	pause(ctx, b.warm)
	if sender != nil {
		for _, s := range []*endpoint.Socket{sender.Socket, receiver.Socket, direct.from, direct.to} {
			s.Stamps() // those of the beginning do not count
		}
	}
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
	seconds := after.at.Sub(before.at).Seconds()
	cpu := (after.cpu - before.cpu).Seconds()
	packets := float64(after.arrived - before.arrived)
	due := float64(after.due - before.due)
	out := report.Ramp{
		System: p.system, Rate: due / seconds, Delivered: min(1, packets/due), Core: cpu / seconds,
		Generator: (ownCPU() - own).Seconds() / seconds, Net: (cpu - idle*seconds) * 1e6 / packets, Load: loadAverage(),
	}
	if sender != nil {
		transit := match(sender.Socket.Stamps(), receiver.Socket.Stamps())
		without := match(direct.from.Stamps(), direct.to.Stamps())
		out.P50, out.P99, out.Max = quantile(transit, 0.5), quantile(transit, 0.99), quantile(transit, 1)
		out.BareP50, out.BareP99, out.Measured = quantile(without, 0.5), quantile(without, 0.99), len(transit)
	}
	for _, stop := range stops {
		err = errors.Join(err, stop())
	}
	return out, errors.Join(err, ctx.Err())
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

// send sends packets until the function that it returns is called.
func (b *bare) send() (stop func() error) {
	p := &party{sources: []*endpoint.Source{endpoint.NewRawSource(voice, b.from, b.to.Addr())}, receivers: []int{1}}
	return p.send(timedRate / float64(voice.FramesPerSecond))
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
