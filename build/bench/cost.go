//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/build/bench/report"
	"rtcd/build/bench/servers"
)

// crypto measures what AES-GCM costs in the library that all of pion and our server use: one packet
// after another, each in the next of a hundred contexts, as in a fan-out.
func (b *bench) crypto(_ context.Context, r *report.Report) error {
	const contexts, rounds = 100, 2000
	for _, size := range []int{104, 1060} {
		var in, out []*srtp.Context
		for range contexts {
			for _, to := range []*[]*srtp.Context{&in, &out} {
				c, err := srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm)
				if err != nil {
					return fmt.Errorf("make a context: %w", err)
				}
				*to = append(*to, c)
			}
		}
		plain, slot := make([]byte, size), make([]byte, 0, 1600)
		plain[0], plain[1] = 0x80, 111
		sealed := make([][]byte, rounds)
		var h rtp.Header
		begin := time.Now()
		for i := range rounds {
			plain[2], plain[3] = byte(i>>8), byte(i)
			for k, c := range out {
				got, err := c.EncryptRTP(slot, plain, &h)
				if err != nil {
					return fmt.Errorf("encrypt: %w", err)
				}
				if k == 0 {
					sealed[i] = slices.Clone(got)
				}
			}
		}
		encrypt := time.Since(begin)
		begin = time.Now()
		for _, packet := range sealed {
			for _, c := range in {
				if _, err := c.DecryptRTP(slot, packet, &h); err != nil {
					return fmt.Errorf("decrypt: %w", err)
				}
			}
		}
		decrypt := time.Since(begin)
		each := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / rounds / contexts }
		r.Crypto = append(r.Crypto, report.Crypto{Bytes: size, Encrypt: each(encrypt), Decrypt: each(decrypt)})
	}
	return nil
}

// idles measures what sessions cost that do nothing.
func (b *bench) idles(ctx context.Context, r *report.Report) error {
	for _, system := range []string{report.Ours, report.Plain} {
		got, err := b.idleSessions(ctx, system)
		if err != nil {
			return fmt.Errorf("%s: %w", system, err)
		}
		b.say("%-13s %d idle sessions: %.1f goroutines, %.0f kB, %.0f µs/s each", system, got.Sessions, got.Goroutines, got.Resident, got.CPU)
		r.Idle = append(r.Idle, got)
	}
	return nil
}

func (b *bench) idleSessions(ctx context.Context, system string) (report.Idle, error) {
	out := report.Idle{System: system, Sessions: b.sessions}
	// The first ones pay for what is shared.
	first := rooms(1, 4, 0)
	p, err := b.start(ctx, system, first)
	if p != nil {
		defer func() { p.close() }()
	}
	if err != nil {
		return out, err
	}
	server := p.server.(servers.Server)
	pause(ctx, b.idle/3)
	goroutines, err := server.Goroutines(ctx)
	if err != nil {
		return out, err
	}
	resident, err := server.Resident()
	if err != nil {
		return out, err
	}
	cpu, took, err := measureCPU(ctx, server, b.idle)
	if err != nil {
		return out, err
	}
	var more []servers.Room
	for i := range b.sessions / 10 {
		more = append(more, room(100+i, 10, 0))
	}
	others, err := join(ctx, system, server, more)
	p.endpoints = append(p.endpoints, others.endpoints...)
	if err != nil {
		return out, err
	}
	pause(ctx, b.idle)
	cpuAfter, tookAfter, err := measureCPU(ctx, server, b.idle)
	if err != nil {
		return out, err
	}
	goroutinesAfter, err := server.Goroutines(ctx)
	if err != nil {
		return out, err
	}
	residentAfter, err := server.Resident()
	n := float64(len(others.endpoints))
	out.Sessions = len(others.endpoints)
	out.Goroutines = float64(goroutinesAfter-goroutines) / n
	out.Resident = float64(residentAfter-resident) / 1000 / n
	out.CPU = (cpuAfter.Seconds()/tookAfter.Seconds() - cpu.Seconds()/took.Seconds()) * 1e6 / n
	return out, err
}

func measureCPU(ctx context.Context, m meter, d time.Duration) (cpu, took time.Duration, err error) {
	before, err := m.CPU()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	pause(ctx, d)
	after, err := m.CPU()
	return after - before, time.Since(begin), err
}

// stormsOfJoins measures many who join one call at once.
func (b *bench) stormsOfJoins(ctx context.Context, r *report.Report) error {
	type times struct{ cpu, p50, p99, single []float64 }
	systems := []string{report.Ours, report.Plain}
	all := make([]times, len(systems))
	for range b.storms {
		for i, system := range systems {
			cpu, storm, single, err := b.storm(ctx, system)
			if err != nil {
				return fmt.Errorf("%s: %w", system, err)
			}
			t := &all[i]
			t.cpu = append(t.cpu, cpu)
			t.p50, t.p99 = append(t.p50, quantile(storm, 0.5)), append(t.p99, quantile(storm, 0.99))
			t.single = append(t.single, quantile(single, 0.5))
		}
	}
	for i, system := range systems {
		t := all[i]
		got := report.Storm{
			System: system, Joins: b.joins, CPU: report.NewSpread(t.cpu), P50: report.NewSpread(t.p50),
			P99: report.NewSpread(t.p99), Single: report.NewSpread(t.single).Median,
		}
		b.say("%-13s %d joins at once: %.1f ms of CPU each, p50 %.0f ms, p99 %.0f ms; one alone %.1f ms",
			system, got.Joins, got.CPU.Median, got.P50.Median, got.P99.Median, got.Single)
		r.Storm = append(r.Storm, got)
	}
	return nil
}

// storm returns the CPU of a join, and the times of joins at once and one by one, in milliseconds.
func (b *bench) storm(ctx context.Context, system string) (cpu float64, at, single []float64, err error) {
	p, err := b.start(ctx, system, rooms(1, 2, 0))
	if p != nil {
		defer func() { p.close() }()
	}
	if err != nil {
		return 0, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	server := p.server.(servers.Server)
	// Each has a microphone, and nobody speaks.
	one, many := room(10, b.singles, b.singles, voice), room(11, b.joins, b.joins, voice)
	empty := []servers.Room{{Name: one.Name}, {Name: many.Name}}
	if err := server.Prepare(ctx, empty); err != nil {
		return 0, nil, nil, err
	}
	for _, m := range one.Members {
		e, err := server.Endpoint(empty[0], m)
		if err != nil {
			return 0, nil, nil, err
		}
		p.add(e, 0)
		begin := time.Now()
		if err := server.Join(ctx, one.Name, e); err != nil {
			return 0, nil, nil, err
		}
		single = append(single, milliseconds(time.Since(begin)))
	}
	pause(ctx, time.Second)
	var joins []func() (float64, error)
	for _, m := range many.Members {
		e, err := server.Endpoint(empty[1], m)
		if err != nil {
			return 0, nil, nil, err
		}
		p.add(e, 0)
		joins = append(joins, func() (float64, error) {
			begin := time.Now()
			err := server.Join(ctx, many.Name, e)
			return milliseconds(time.Since(begin)), err
		})
	}
	before, err := p.server.CPU()
	if err != nil {
		return 0, nil, nil, err
	}
	at = make([]float64, len(joins))
	faults := make([]error, len(joins))
	var wg sync.WaitGroup
	for i, j := range joins {
		wg.Go(func() { at[i], faults[i] = j() })
	}
	if b.profiles != "" && system == report.Ours {
		if err := b.profile(ctx, "storm", server, 3*time.Second); err != nil {
			return 0, nil, nil, err
		}
	}
	wg.Wait()
	if err := errors.Join(faults...); err != nil {
		return 0, nil, nil, err
	}
	after, err := p.server.CPU()
	return milliseconds(after-before) / float64(len(joins)), at, single, err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile returns the value below which a share of them lies.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Clone(values)
	slices.Sort(v)
	return v[min(int(share*float64(len(v))), len(v)-1)]
}
