package load

import (
	"context"
	"fmt"
	"os"
	"time"

	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/cmd/rtcd-load/internal/probe"
	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/cmd/rtcd-load/internal/stats"
)

// A mark is the state of all counters at some time.
type mark struct {
	at                       time.Duration // by media.Now
	sent, received           uint64
	expected, unique         uint64
	freezes                  uint64
	voice, video, late       *stats.Snapshot
	server                   probe.Sample
	own                      time.Duration
	machine                  probe.Machine
	machineKnown             bool
	skipped, failed          uint64
	refused, overflows       uint64
	dropped, lostByOurselves uint64
}

// A sampler looks at the counters each second, and at the beginning and end of what is measured.
type sampler struct {
	run     *run
	ticker  *time.Ticker
	planned int
	before  probe.Sample
	last    mark
	rssMax  int64

	start, first, final mark // the run's beginning, and that and the end of what is measured
	seconds             []report.Second
}

func newSampler(r *run, before probe.Sample, planned int) *sampler {
	s := &sampler{run: r, ticker: time.NewTicker(time.Second), planned: planned, before: before, rssMax: -1}
	s.start = s.mark(before)
	s.last = s.start
	return s
}

func (s *sampler) stop() { s.ticker.Stop() }

// mark reads all counters.
func (s *sampler) mark(server probe.Sample) mark {
	t, counts := &s.run.ledger.Totals, &s.run.counts
	m := mark{
		at: media.Now(), sent: t.Sent.Load(), received: t.Received.Load(), expected: t.Expected.Load(),
		unique: t.Unique.Load(), freezes: t.Freezes.Load(), voice: t.VoiceDelay.Snapshot(),
		video: t.VideoDelay.Snapshot(), late: s.run.late.Snapshot(), server: server, own: probe.OwnCPU(),
		skipped: t.Skipped.Load(), failed: t.Failed.Load(), refused: counts.Refused.Load(),
		overflows: counts.Overflows.Load(), lostByOurselves: counts.LostUp.Load() + counts.LostDown.Load(),
	}
	m.machine, m.machineKnown = probe.ReadMachine()
	m.dropped = s.run.socketDrops()
	return m
}

// socketDrops returns how many datagrams the run's sockets dropped unread, where that is known.
func (r *run) socketDrops() (n uint64) {
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		n = r.ports.Dropped(f)
		_ = f.Close()
	}
	return n
}

// sample asks the server. What it cannot say is told once.
func (s *sampler) sample(ctx context.Context) probe.Sample {
	out, err := s.run.o.Server.Sample(ctx)
	if err != nil && ctx.Err() == nil {
		s.run.fault(fmt.Errorf("sample the server: %w", err))
	}
	s.rssMax = max(s.rssMax, out.RSS)
	return out
}

// begin and end mark what is measured.
func (s *sampler) begin() { s.first = s.mark(s.sample(context.Background())) }
func (s *sampler) end()   { s.final = s.mark(s.sample(context.Background())) }

// until samples each second until done is closed, or d has passed if there is no done, or ctx ends.
func (s *sampler) until(ctx context.Context, phase string, done <-chan struct{}, d time.Duration) {
	var after <-chan time.Time
	end := time.Now().Add(d)
	if done == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	for {
		select {
		case <-s.ticker.C:
			left := time.Duration(0)
			if done == nil {
				left = max(time.Until(end), 0)
			}
			s.tick(ctx, phase, left)
		case <-done:
			return
		case <-after:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *sampler) tick(ctx context.Context, phase string, left time.Duration) {
	m := s.mark(s.sample(ctx))
	second := s.between(&s.last, &m)
	second.Measured = phase == "measuring"
	s.last = m
	s.seconds = append(s.seconds, second)
	if s.run.o.Progress != nil {
		s.run.o.Progress(Progress{
			Phase: phase, Left: left, Planned: s.planned, Failed: int(s.run.failed.Load()), Second: second,
		})
	}
}

func (s *sampler) between(a, b *mark) report.Second {
	delay := b.voice.Sub(a.voice).Merge(b.video.Sub(a.video))
	elapsed := max((b.at - a.at).Seconds(), 1e-3)
	out := report.Second{
		At: (b.at - s.run.began).Seconds(), People: int(s.run.people.Load()),
		Sent: perSecond(b.sent-a.sent, elapsed), Received: perSecond(b.received-a.received, elapsed),
		P50: report.Ms(delay.Quantile(0.5)), P95: report.Ms(delay.Quantile(0.95)), P99: report.Ms(delay.Quantile(0.99)),
		Freezes: b.freezes - a.freezes, ServerCores: -1, ServerRSS: b.server.RSS,
		OwnCores: (b.own - a.own).Seconds() / elapsed, Late: report.Ms(b.late.Sub(a.late).Quantile(0.99)),
	}
	// A packet that is sent again may come in a later second than the one in which it was missed.
	if expected, unique := b.expected-a.expected, b.unique-a.unique; expected > unique {
		out.Loss = float64(expected-unique) / float64(expected)
	}
	if a.server.CPU >= 0 && b.server.CPU >= 0 {
		out.ServerCores = (b.server.CPU - a.server.CPU).Seconds() / elapsed
	}
	return out
}

func perSecond(n uint64, elapsed float64) uint64 { return uint64(float64(n)/elapsed + 0.5) }
