//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rtcd/build/bench/report"
	"rtcd/build/bench/servers"
)

// plan is how long everything takes.
type plan struct {
	rounds         int           // in which each system is measured once
	window         time.Duration // that it is measured for
	warm           time.Duration // of sending before
	check          time.Duration // that everything is checked for
	idle           time.Duration // that idle sessions are left alone, and then measured
	sessions       int           // of those
	joins, singles int           // of a storm, and one by one
	storms         int
	ramp           time.Duration // at each rate
	profiles       string        // folder for CPU profiles of rtcd; empty: none are made
}

// bench has the binaries.
type bench struct {
	plan
	rtcd, plain, raw string
	say              func(format string, args ...any)
}

// start starts a server and brings everybody in.
func (b *bench) start(ctx context.Context, system string, rooms []servers.Room) (*party, error) {
	switch system {
	case report.Ours:
		s, err := servers.StartRtcd(ctx, b.rtcd)
		if err != nil {
			return nil, err
		}
		return join(ctx, system, s, rooms)
	case report.Plain:
		s, err := servers.StartPlain(ctx, b.plain)
		if err != nil {
			return nil, err
		}
		return join(ctx, system, s, rooms)
	}
	mode := "sendto"
	if system == report.GSO {
		mode = "gso"
	}
	s, err := servers.StartRaw(ctx, b.raw, mode, rooms)
	if err != nil {
		return nil, err
	}
	return raw(system, s), nil
}

// measured is what a party came to in the rounds.
type measured struct {
	net, gross, core, ratio []float64
	idle, idleTime          time.Duration
	due, arrived            uint64
	counted, owed           uint64 // by the server itself, in whole rounds
	checked                 checked
	active                  []window
}

// window is one round of one system.
type window struct {
	cpu, took time.Duration
	packets   float64
}

// compare measures all systems under the same load. All of them run at the same time, and are sent
// media in turns, so that what disturbs the machine disturbs all.
func (b *bench) compare(ctx context.Context, sc scenario) (report.Scenario, error) {
	out := report.Scenario{
		Name: sc.name, Title: sc.title, Sessions: sc.sessions(), Rate: sc.rate(), Video: sc.video(), Reading: sc.reading,
	}
	systems := []string{report.Ours, report.Plain}
	if !sc.reading {
		systems = append(systems, report.Sendto, report.GSO)
	}
	var parties []*party
	defer func() {
		for _, p := range parties {
			p.close()
		}
	}()
	results := make([]measured, len(systems))
	for i, system := range systems {
		p, err := b.start(ctx, system, sc.rooms)
		if p != nil {
			parties = append(parties, p)
		}
		if err != nil {
			return out, fmt.Errorf("%s: %w", system, err)
		}
		p.reading = sc.reading
		if p.endpoints == nil {
			continue
		}
		if results[i].checked, err = p.check(ctx, sc.rate(), b.check); err != nil {
			return out, err
		}
		if !sc.reading {
			if err := p.drop(); err != nil {
				return out, err
			}
		}
	}
	for round := range b.rounds {
		order := slices.Clone(parties)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, p := range order {
			if err := b.round(ctx, p, parties, results); err != nil {
				return out, fmt.Errorf("%s: %w", p.system, err)
			}
		}
	}
	if b.profiles != "" {
		stop := parties[0].send(1)
		err := b.profile(ctx, sc.name, parties[0].server.(servers.Server), 10*time.Second)
		if err := errors.Join(err, stop()); err != nil {
			return out, err
		}
	}
	out.Costs = costs(systems, results)
	out.Load = loadAverage()
	return out, nil
}

// round sends at one party and measures it, and what the others cost meanwhile, idle.
func (b *bench) round(ctx context.Context, active *party, all []*party, results []measured) error {
	owed := active.due()
	counted, err := active.forwarded(ctx)
	if err != nil {
		return err
	}
	stop := active.send(1)
	pause(ctx, b.warm)
	before := make([]sample, len(all))
	for i, p := range all {
		if before[i], err = p.sample(); err != nil {
			return err
		}
	}
	pause(ctx, b.window)
	for i, p := range all {
		after, err := p.sample()
		if err != nil {
			return err
		}
		cpu, took := after.cpu-before[i].cpu, after.at.Sub(before[i].at)
		if p != active {
			results[i].idle += cpu
			results[i].idleTime += took
			continue
		}
		packets := after.arrived - before[i].arrived
		results[i].active = append(results[i].active, window{cpu: cpu, took: took, packets: float64(packets)})
		results[i].arrived += packets
		results[i].due += after.due - before[i].due
	}
	if err := stop(); err != nil {
		return err
	}
	pause(ctx, drainStep)
	nowCounted, err := active.forwarded(ctx)
	if err != nil {
		return err
	}
	r := &results[slices.Index(all, active)]
	r.counted += nowCounted - counted
	r.owed += active.due() - owed
	return ctx.Err()
}

// costs turns what was measured into what is reported.
func costs(systems []string, results []measured) []report.Cost {
	for i := range results {
		r := &results[i]
		idle := r.idle.Seconds() / r.idleTime.Seconds()
		for _, w := range r.active {
			micros := float64(w.cpu) / float64(time.Microsecond)
			r.gross = append(r.gross, micros/w.packets)
			r.net = append(r.net, (micros-idle*float64(w.took)/float64(time.Microsecond))/w.packets)
			r.core = append(r.core, w.cpu.Seconds()/w.took.Seconds())
		}
	}
	plain := results[slices.Index(systems, report.Plain)].net
	var out []report.Cost
	for i, r := range results {
		for k := range r.net {
			r.ratio = append(r.ratio, r.net[k]/plain[k])
		}
		out = append(out, report.Cost{
			System: systems[i], Net: report.NewSpread(r.net), Gross: report.NewSpread(r.gross), Ratio: report.NewSpread(r.ratio),
			Core: report.NewSpread(r.core).Median, Idle: r.idle.Seconds() / r.idleTime.Seconds(),
			Delivered: float64(r.arrived) / float64(r.due), Counted: float64(r.counted) / float64(r.owed),
			Checked: r.checked.packets, Due: r.checked.due, Bad: r.checked.bad, Gaps: r.checked.gaps,
		})
	}
	return out
}

// profile keeps a CPU profile of a server, as it is for a time.
func (b *bench) profile(ctx context.Context, name string, s servers.Server, d time.Duration) error {
	data, err := s.Profile(ctx, d)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.profiles, name+".pprof"), data, 0o644)
}

// loadAverage returns that of the last minute.
func loadAverage() float64 {
	b, _ := os.ReadFile("/proc/loadavg")
	var load float64
	_, _ = fmt.Sscan(strings.TrimSpace(string(b)), &load)
	return load
}
