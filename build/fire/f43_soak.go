//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var soak = scenario{
	id: "F43", title: "a soak with joins and leaves and 1 % loss", promises: []string{"P20"},
	criterion: "memory grows at most 1 MiB an hour, goroutines within 10, descriptors within 2 of the start",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		for i, w := range []field.Way{field.From, field.To} {
			impairer, err := f.Impair("cli1", w, t.seed+uint64(i))
			if err != nil {
				return err
			}
			impairer.Set(field.Impairment{Loss: 0.01})
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) {
			c.Config = append(c.Config, "events.memory_mib = 1")
		}, nil)
		if err != nil {
			return err
		}
		// Sampled when everybody who came has left again.
		var at, heap, resident []float64
		var first, last load.Usage
		length, began := cmp.Or(t.soak, t.lasting(20*time.Second, 8*time.Hour)), time.Now()
		warm := length / 5
		for i := 0; time.Since(began) < length; i++ {
			// What is remembered of a call that goes on is bounded. A leak is what grows beyond that.
			full := length < 10*time.Minute || i >= pastSessions
			if i == pastSessions {
				warm = max(warm, time.Since(began)+warmAfter)
			}
			q, err := load.NewPerson(p.Backends[0], f.Host("cli2"), "call1", fmt.Sprintf("soak-%d", i), nil)
			if err != nil {
				return err
			}
			if err := q.Connect(ctx); err != nil {
				t.shortfall("join %d: %v", i, err)
			}
			if full {
				if err := t.wait(ctx, 300*time.Millisecond); err != nil {
					return err
				}
			}
			if err := q.Leave(); err != nil {
				return err
			}
			t.result.Count++
			if !full {
				continue
			}
			if err := t.wait(ctx, 500*time.Millisecond); err != nil {
				return err
			}
			if i%max(1, int(length.Seconds()/60)) != 0 || time.Since(began) < warm {
				continue
			}
			u, err := p.Server.Collected(ctx)
			if err != nil {
				return err
			}
			if first.Goroutines == 0 {
				first = u
			}
			last = u
			at = append(at, time.Since(began).Hours())
			heap = append(heap, float64(u.Heap)/(1<<20))
			resident = append(resident, float64(u.Resident)/(1<<20))
		}
		t.result.More["resident_mib"], t.result.More["heap_mib"] = resident, heap
		h, r := slope(at, heap), slope(at, resident)
		t.result.More["heap_mib_per_hour"], t.result.More["resident_mib_per_hour"], t.result.More["samples"] = h, r, len(at)
		goroutines, files := last.Goroutines-first.Goroutines, last.Files-first.Files
		t.result.GoroutineDelta, t.result.FileDelta = goroutines, files
		t.say("%d joins in %v: heap %+.2f MiB/h, resident %+.2f MiB/h, %+d goroutines, %+d descriptors", t.result.Count,
			length, h, r, goroutines, files)
		kept := t.expect(goroutines <= 10 && goroutines >= -10, "%+d goroutines", goroutines)
		kept = t.expect(files <= 2, "%+d descriptors", files) && kept
		if length >= time.Hour && len(at) >= 30 {
			kept = t.expect(r <= 1, "memory grows by %.2f MiB an hour", r) && kept
		} else { // noise is greater than what would be found
			t.result.NotJudged = append(t.result.NotJudged, fmt.Sprintf("%v and %d samples say nothing about memory", length, len(at)))
		}
		t.promise("P20", kept, int(length.Seconds()), "seconds", "resident %+.1f MiB/h over %d samples, %+d goroutines, %+d descriptors", r, len(at), goroutines, files)
		return t.leaveIdle(ctx, p)
	},
}

// What a server remembers of a call that goes on, and for how long what it remembers of each second grows
// quickly: package report.
const (
	pastSessions = 2_100
	warmAfter    = 10 * time.Minute
)

// slope is that of the line that fits best.
func slope(x, y []float64) float64 {
	n := float64(len(x))
	if n < 2 {
		return 0
	}
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
