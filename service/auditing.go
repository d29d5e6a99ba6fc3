package service

import (
	"errors"

	"rtcd/config"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/audit"
	"rtcd/service/metrics"
)

// openAudit opens the log of events, if the configuration wants one.
func (s *Server) openAudit() error {
	if !s.cfg.AuditOn() {
		return nil
	}
	a := s.cfg.Audit
	r, err := audit.Open(audit.Config{
		Dir: a.Dir, UserID: a.UserID, OnFailure: a.OnFailure, MaxFileBytes: int64(a.MaxFileMiB) << 20, KeepDays: a.KeepDays,
		Sinks: auditSinks(a.Sinks),
	}, s.log)
	if err != nil {
		return errors.Join(errors.New("open audit log "+a.Dir), err)
	}
	s.audit = r
	s.metrics.SetAudit(func() []metrics.Sample { return auditSamples(r.Stats()) })
	s.onClose(func() error {
		ctx, cancel := s.stopping()
		defer cancel()
		return s.cutOff("audit sinks", r.Close(ctx))
	})
	return nil
}

func auditSinks(list []config.AuditSink) []audit.SinkConfig {
	var out []audit.SinkConfig
	for _, k := range list {
		out = append(out, audit.SinkConfig{
			Type: k.Type, Transport: k.Transport, Address: k.Address, CAFile: k.CAFile,
			CertFile: k.CertFile, KeyFile: k.CertKey, SpoolBytes: int64(k.SpoolMiB) << 20,
		})
	}
	return out
}

// auditSamples is what the log of events shows of itself at each scrape.
func auditSamples(st audit.Stats) []metrics.Sample {
	failing := 0.0
	if st.Failing {
		failing = 1
	}
	out := []metrics.Sample{
		{Name: "audit_events_total", Help: "Events in the audit log since the start.", N: float64(st.Written)},
		{Name: "audit_dropped_events_total", Help: "Events lost because they could not be written in time.", N: float64(st.Dropped)},
		{Name: "audit_write_errors_total", Help: "Attempts to write the audit log that failed.", N: float64(st.Errors)},
		{Name: "audit_failing", Help: "1 if the last attempt to write the audit log failed.", Gauge: true, N: failing},
		{Name: "audit_queued_events", Help: "Events that wait to be written.", Gauge: true, N: float64(st.Queued)},
	}
	sink := func(name, help string, gauge bool, n func(audit.SinkStats) float64) {
		for _, k := range st.Sinks {
			out = append(out, metrics.Sample{Name: name, Help: help, Gauge: gauge, Label: "sink", Value: k.Name, N: n(k)})
		}
	}
	sink("audit_sink_skipped_events_total", "Events never sent because too many waited.", false, func(k audit.SinkStats) float64 { return float64(k.Skipped) })
	sink("audit_sink_failures_total", "Connections to the sink that failed or broke.", false, func(k audit.SinkStats) float64 { return float64(k.Failures) })
	sink("audit_sink_unsent_events", "Events that are not delivered yet.", true, func(k audit.SinkStats) float64 { return float64(k.Unsent) })
	return out
}

// recordMessage keeps what became of a message or of a connection.
func (s *Server) recordMessage(e ws.Event) {
	out := audit.Event{
		Type: e.Type, Action: audit.Execute, Actor: audit.Actor{Kind: audit.Client, ID: e.ClientID}, Remote: e.Remote,
		CallID: e.CallID, SessionID: e.SessionID, User: e.UserID, Outcome: audit.Outcome(e.Outcome), Reason: e.Reason,
	}
	switch e.Type {
	case ws.EventJoin:
		out.Action, out.Object = audit.Create, audit.Object{Kind: "session", ID: e.SessionID}
	case ws.EventLeave:
		out.Action, out.Object = audit.Delete, audit.Object{Kind: "session", ID: e.SessionID}
	case ws.EventReconnect, ws.EventSignal:
		out.Object = audit.Object{Kind: "session", ID: e.SessionID}
	case ws.EventModerate:
		out.Object = moderated(e)
	default:
		out.Object = audit.Object{Kind: "connection", ID: e.ConnID}
	}
	s.audit.Record(out)
	// A flood of messages waits for the disk here, in the connections that it comes by.
	s.audit.Pace(out.Actor)
}

// moderated is what a moderation is about.
func moderated(e ws.Event) audit.Object {
	switch e.Action {
	case wire.ActionUnpublish:
		return audit.Object{Kind: "stream", ID: e.StreamID}
	case wire.ActionMuteAll, wire.ActionMuteState:
		return audit.Object{Kind: "call", ID: e.CallID}
	}
	return audit.Object{Kind: "session", ID: e.SessionID}
}
