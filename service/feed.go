package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/api/ws"
	"rtcd/service/feed"
	"rtcd/service/metrics"
	"rtcd/service/rtc"
)

// Bounds of how long streams of events and webhooks hold up the end of the server: in all, and once peers
// have had their time.
const (
	endFeedTime  = 3 * time.Second
	lastFeedTime = 200 * time.Millisecond
)

// openFeed opens the log of what takes place in calls.
func (s *Server) openFeed() error {
	e := s.cfg.Events
	f, err := feed.Open(feed.Config{
		Dir: e.Dir, KeepBytes: int64(e.KeepMiB) << 20, TotalBytes: int64(e.TotalMiB) << 20, KeepFor: e.KeepFor,
		MemoryBytes: int64(e.MemoryMiB) << 20, Hooks: webhooks(s.cfg.Webhooks), Own: s.ownAddresses,
		Continued: s.inherited != nil,
	}, s.log)
	if err != nil {
		return err
	}
	s.feed = f
	s.metrics.SetFeed(func() []metrics.Sample { return feedSamples(f.Stats()) })
	s.onClose(func() error {
		ctx, cancel := s.feedTime()
		defer cancel()
		err := f.Close(ctx)
		if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
			return err
		}
		s.log.Warn("events of calls that could not be written are lost", "err", err)
		return nil
	})
	return nil
}

// feedTime is what the feed has to end. The parts that close after it must get their time, too: the store
// and the audit log.
func (s *Server) feedTime() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), endFeedTime)
	if s.ending != nil {
		context.AfterFunc(s.ending, func() { time.AfterFunc(lastFeedTime, cancel) })
	}
	return ctx, cancel
}

func webhooks(list []config.Webhook) []feed.Hook {
	var out []feed.Hook
	for _, w := range list {
		out = append(out, feed.Hook{
			Name: w.Name, Client: w.Client, Secrets: w.Secrets(), Types: w.Events,
			Target: feed.Target{URL: w.URL, AllowPrivate: w.AllowPrivate},
		})
	}
	return out
}

// CheckWebhooks looks up where the webhooks of a configuration lead, and says which of them the server
// would not send to, by index.
func CheckWebhooks(ctx context.Context, cfg config.Config) map[int]error {
	faults := make(map[int]error)
	for i, h := range webhooks(cfg.Webhooks) {
		if err := h.Target.Resolve(ctx, net.DefaultResolver); err != nil {
			faults[i] = err
		}
	}
	return faults
}

// startFeed begins to send webhooks, and sees to it that the streams end before the API does.
func (s *Server) startFeed() error {
	s.feed.Start()
	s.onClose(func() error {
		ctx, cancel := s.feedTime()
		defer cancel()
		_ = s.feed.End(ctx) // Close tells of it
		return nil
	})
	return nil
}

// ownAddresses are what webhooks must not reach.
func (s *Server) ownAddresses() []string {
	var own []string
	for _, l := range []*api.Server{s.public, s.admin} {
		if l != nil {
			own = append(own, l.Addr().String())
		}
	}
	for _, a := range s.mediaTCP {
		own = append(own, a.String())
	}
	return own
}

// callEvent hands an event to all who take them, in the order of the calls. It must not block for long.
func (s *Server) callEvent(e rtc.CallEvent) {
	s.feed.Add(e.GroupID, eventOf(e))
	if e.Type == rtc.CallEnded && s.reports != nil && s.reports.keeps(e.GroupID, e.CallID, e.Time) {
		s.feed.ReportReady(e.GroupID, e.CallID)
	}
}

// eventOf is an event as the feed has it.
func eventOf(e rtc.CallEvent) feed.Event {
	out := feed.Event{
		Type: string(e.Type), Time: e.Time, CallID: e.CallID, SessionID: e.SessionID, UserID: e.UserID,
		StreamID: e.StreamID, Source: e.Source, Codec: e.Codec,
	}
	switch e.Type {
	case rtc.ParticipantJoined:
		out.Role = e.Detail
	case rtc.Moderated:
		out.Action = e.Detail
	case rtc.ParticipantConnected, rtc.ParticipantMoved:
		out.Path = e.Detail
	default:
		out.Reason = asWord.Replace(e.Detail)
	}
	return out
}

// asWord makes of what is meant for logs what programs compare.
var asWord = strings.NewReplacer(" ", "_", "-", "_")

// stillGood says whether what a request came with is good for a route now.
func (s *Server) stillGood(p api.Principal, route string) bool {
	roles, ok := s.current(ws.Peer{ClientID: p.ClientID, Epoch: p.Epoch})
	return ok && s.policy.Allows(roles, route)
}

// feedSamples is what the feed shows of itself at each scrape.
func feedSamples(st feed.Stats) []metrics.Sample {
	flag := func(on bool) float64 {
		if on {
			return 1
		}
		return 0
	}
	out := []metrics.Sample{
		{Name: "events_total", Help: "Events of calls since the start.", N: float64(st.Events)},
		{Name: "events_lost_total", Help: "Events lost because they could not be written for too long.", N: float64(st.Lost)},
		{Name: "events_write_errors_total", Help: "Attempts to write events that failed.", N: float64(st.WriteErrors)},
		{Name: "events_failing", Help: "1 if the last attempt to write events failed.", Gauge: true, N: flag(st.Failing)},
		{Name: "events_waiting", Help: "Events that wait to be written; they are not delivered before.", Gauge: true, N: float64(st.Delayed)},
		{Name: "events_disk_bytes", Help: "Bytes of events on disk.", Gauge: true, N: float64(st.DiskBytes)},
		{Name: "events_memory_bytes", Help: "Bytes of events in memory.", Gauge: true, N: float64(st.MemoryBytes)},
	}
	hook := func(name, help string, gauge bool, n func(feed.HookStats) float64) {
		for _, h := range st.Hooks {
			out = append(out, metrics.Sample{Name: name, Help: help, Gauge: gauge, Label: "webhook", Value: h.Name, N: n(h)})
		}
	}
	hook("webhook_delivered_events_total", "Events that the receiver has taken.", false, func(h feed.HookStats) float64 { return float64(h.Delivered) })
	hook("webhook_failures_total", "Attempts to deliver that failed.", false, func(h feed.HookStats) float64 { return float64(h.Failures) })
	hook("webhook_failing", "1 if the last attempt failed.", true, func(h feed.HookStats) float64 { return flag(h.Failing) })
	hook("webhook_unsent_events", "Events behind the last one that the receiver has taken.", true, func(h feed.HookStats) float64 { return float64(h.Unsent) })
	hook("webhook_last_success_timestamp_seconds", "When the receiver last took events; 0: not since the start.", true, func(h feed.HookStats) float64 {
		if h.LastSuccess.IsZero() {
			return 0
		}
		return float64(h.LastSuccess.UnixMilli()) / 1000
	})
	return out
}

// forget removes the events of a client that is removed. Those that its calls have told of by now are
// taken in first: nothing of them is there for whoever has the id next.
func (t *tenants) forget(id string) {
	t.calls.FlushCallEvents()
	if err := t.feed.Forget(id); err != nil {
		t.log.Error("events of a removed client are still there", "clientID", id, "err", fmt.Sprint(err))
	}
	if t.reports != nil {
		t.reports.forget(id)
	}
}
