package load

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/cmd/rtcd-load/internal/report"
)

// When the generator is to blame for what it measures.
const (
	limitCPU     = 0.85 // share of the CPUs it may use
	limitMachine = 0.97 // share of the whole machine that is busy
	limitLate    = 10 * time.Millisecond
	limitShare   = 0.001 // of packets that it did not send or read
)

// tally is what became of all streams.
type tally struct {
	expected, unique, lost uint64
	streams, silent        int
	neverHeard             int
	kinds                  [media.Screen + 1]report.Kind
}

// outcomes holds what everybody got against what was sent. Nothing more is on its way.
func (r *run) outcomes(everybody []*person) (t tally) {
	drain := r.drain()
	for _, p := range everybody {
		if p.receiver == nil {
			continue
		}
		p.mu.Lock()
		until, open := media.Now(), p.open > 0
		if p.left {
			until = p.until
		}
		p.mu.Unlock()
		if !open {
			continue
		}
		silent, streams := 0, p.receiver.Outcomes(until, drain)
		for _, o := range streams {
			t.expected += o.Expected
			t.unique += o.Unique
			t.lost += o.Lost()
			k := &t.kinds[o.Source.Kind]
			k.Streams++
			k.Expected += o.Expected
			k.Lost += o.Lost()
			if o.Silent {
				silent++
			}
		}
		t.streams += len(streams)
		t.silent += silent
		if len(streams) > 0 && silent == len(streams) {
			t.neverHeard++
		}
		r.fault(p.endpoint.Err())
	}
	return t
}

// leave ends all that are still there and reports whether the server confirmed it for each.
func (r *run) leave(everybody []*person) bool {
	var wg sync.WaitGroup
	turns := make(chan struct{}, leaveAtOnce)
	for _, p := range everybody {
		if p.endpoint == nil {
			continue
		}
		turns <- struct{}{}
		wg.Go(func() {
			p.leave()
			<-turns
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	for _, p := range everybody {
		if p.endpoint == nil || p.open == 0 {
			continue
		}
		select {
		case <-p.closed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// result puts together what was found.
func (r *run) result(s *sampler, everybody []*person, t tally, confirmed, interrupted bool) *report.Result {
	totals := &r.ledger.Totals
	first, final := &s.first, &s.final
	voice, video := final.voice.Sub(first.voice), final.video.Sub(first.video)
	out := &report.Result{
		Scenario: r.o.Scenario, Measured: (final.at - first.at).Seconds(), Interrupted: interrupted,
		VoiceDelay: report.Summarize(voice), VideoDelay: report.Summarize(video),
		Delay: report.Summarize(voice.Merge(video)), Over: s.seconds, Errors: r.faults,
		Video: report.Video{
			Frames: totals.Frames.Load(), Freezes: totals.Freezes.Load(),
			Frozen: time.Duration(totals.Frozen.Load()).Seconds(), Asked: totals.Asked.Load(),
		},
		Delivery: report.Delivery{
			Sent: totals.Sent.Load(), Received: totals.Received.Load(), Expected: t.expected, Lost: t.lost,
			Withheld: totals.Withheld.Load(), Silent: t.silent, Streams: t.streams, Duplicates: totals.Duplicates.Load(), Late: totals.Late.Load(),
			Reordered: totals.Reordered.Load(), Bad: totals.Bad.Load(), Foreign: totals.Foreign.Load(),
			OwnLost: r.counts.LostUp.Load() + r.counts.LostDown.Load(),
		},
		People: report.People{
			Planned: len(everybody), Failed: int(r.failed.Load()), Dropped: int(r.dropped.Load()),
			Join: report.Summarize(r.join.Snapshot()), FirstMedia: report.Summarize(r.firstMedia.Snapshot()),
			NeverHeard: t.neverHeard, SessionsOK: confirmed,
		},
	}
	if t.expected > 0 {
		out.Delivery.Loss = float64(t.lost) / float64(t.expected)
	}
	for kind, k := range t.kinds {
		if k.Expected > 0 {
			k.Kind, k.Loss = media.Kind(kind).String(), float64(k.Lost)/float64(k.Expected)
			out.Delivery.ByKind = append(out.Delivery.ByKind, k)
		}
	}
	if all := t.expected + out.Delivery.Withheld; all > 0 {
		out.Delivery.WithheldShare = float64(out.Delivery.Withheld) / float64(all)
	}
	if t.unique > 0 {
		out.Delivery.Reorder = float64(out.Delivery.Reordered) / float64(t.unique)
	}
	rooms := make(map[int]struct{})
	for _, p := range everybody {
		rooms[p.plan.Room] = struct{}{}
		if j, ok := p.record(); ok {
			out.Joins = append(out.Joins, j)
		}
	}
	out.People.Joined, out.People.Rooms = len(out.Joins), len(rooms)
	for _, second := range s.seconds {
		out.People.MaxAtOnce = max(out.People.MaxAtOnce, second.People)
	}
	out.ServerUse = s.serverUse(len(out.Joins))
	out.Generator = s.generator()
	out.Generator.Rejoined = r.conn.Stats().Reconnects
	return out
}

func (s *sampler) serverUse(joined int) report.ServerUse {
	use := report.ServerUse{
		Known: s.run.o.Server.Known(), CPU: -1, Cores: -1, PerPacket: -1, Forwarded: -1,
		RSS: s.final.server.RSS, RSSMax: s.rssMax, RSSIdle: s.before.RSS, JoinCPU: -1,
		Packets: float64(s.final.received - s.first.received),
	}
	a, b := s.first.server, s.final.server
	if a.CPU >= 0 && b.CPU >= 0 {
		use.CPU = (b.CPU - a.CPU).Seconds()
		use.Cores = use.CPU / max((s.final.at-s.first.at).Seconds(), 1e-3)
		if use.Packets > 0 {
			use.PerPacket = use.CPU * 1e6 / use.Packets
		}
	}
	if s.before.CPU >= 0 && a.CPU >= 0 && joined > 0 {
		use.JoinCPU = (a.CPU - s.before.CPU).Seconds() * 1e3 / float64(joined)
	}
	if a.Forwarded >= 0 && b.Forwarded >= a.Forwarded { // the counters of a client that left are gone
		use.Forwarded = b.Forwarded - a.Forwarded
	}
	return use
}

// generator judges this process in the time that was measured.
func (s *sampler) generator() report.Generator {
	a, b := &s.first, &s.final
	elapsed := max((b.at - a.at).Seconds(), 1e-3)
	late := b.late.Sub(a.late)
	g := report.Generator{
		CPU: (b.own - a.own).Seconds() / elapsed, Machine: -1, Late: report.Summarize(late),
		Skipped: b.skipped - a.skipped, Refused: b.refused - a.refused + b.failed - a.failed,
		Dropped: b.dropped - a.dropped, Overflows: b.overflows - a.overflows,
		Cores: min(runtime.GOMAXPROCS(0), runtime.NumCPU()), Limited: []string{},
	}
	limited := func(format string, args ...any) { g.Limited = append(g.Limited, fmt.Sprintf(format, args...)) }
	if a.machineKnown && b.machineKnown {
		g.Machine = b.machine.Since(a.machine)
	}
	for _, w := range []struct {
		when string
		a, b *mark
	}{{"while people joined, ", &s.start, a}, {"", a, b}} {
		if w.b.at-w.a.at < time.Second {
			continue
		}
		share := (w.b.own - w.a.own).Seconds() / (w.b.at - w.a.at).Seconds() / float64(g.Cores)
		if share >= limitCPU {
			limited("%sit used %.0f %% of its %d CPUs", w.when, share*100, g.Cores)
		}
		if w.a.machineKnown && w.b.machineKnown {
			if busy := w.b.machine.Since(w.a.machine); busy >= limitMachine {
				limited("%sthe machine it runs on was %.0f %% busy", w.when, busy*100)
			}
		}
	}
	if p99 := late.Quantile(0.99); p99 >= limitLate {
		limited("1 %% of its sending was late by %v or more", p99.Round(100*time.Microsecond))
	}
	sent, received := float64(b.sent-a.sent), float64(b.received-a.received)
	if float64(g.Skipped) > limitShare*sent {
		limited("it left out %d packets because it was too late for them", g.Skipped)
	}
	if float64(g.Refused) > limitShare*sent {
		limited("its kernel did not take %d packets", g.Refused)
	}
	if float64(g.Dropped+g.Overflows) > limitShare*received {
		limited("it did not read %d packets in time", g.Dropped+g.Overflows)
	}
	return g
}
