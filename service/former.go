package service

import (
	"context"
	"encoding/json"
	"time"

	"rtcd/service/handover"
	"rtcd/service/rtc"
	"rtcd/service/rtc/netio"
)

// serveFormer serves the calls that are left for the process that is in front now, and returns once
// there are none, that process is gone, or ctx is done and the deadline of a drain has come.
func (s *Server) serveFormer(ctx context.Context, front *handover.Conn) error {
	calls := s.calls.Server
	if err := calls.Release(); err != nil {
		s.log.Warn("upgrade: media sockets", "err", err)
	}
	link := handover.NewLink(front, func(l *handover.Link, f handover.Frame) { s.obey(l, f) })
	defer func() { _ = link.Close() }()
	calls.SetStray(func(d netio.Stray) { link.Post(frameStray, encode(d)) })
	s.out.attach(&audience{
		emit:    func(e rtc.Event) { link.Post(frameEmit, encode(e)) },
		ended:   func(k rtc.CallKey) { link.Post(frameEnded, encode(k)) },
		changed: func(group string, c rtc.CallInfo) { link.Post(frameChanged, encode(changedCall{group, c})) },
		event:   func(e rtc.CallEvent) { link.Post(frameEvent, encode(e)) },
	})
	link.Post(frameSettled, nil)
	defer s.bequeath(link)()
	sessions, n := calls.Load()
	s.log.Info("upgrade: the successor serves, the calls that run end here", "sessions", sessions, "calls", n)
	s.awaitIdle(ctx, link)
	calls.SetStray(nil)
	err := calls.Close() // the last events go out before the link closes
	s.log.Info("stopped")
	return err
}

// awaitIdle waits for the end of a former process.
func (s *Server) awaitIdle(ctx context.Context, link *handover.Link) {
	idle, done := s.calls.Server.Idle(), ctx.Done()
	var due <-chan time.Time
	for {
		select {
		case <-idle:
			return
		case <-link.Done():
			s.log.Error("upgrade: the process in front is gone, and nobody speaks for the calls that are left")
			return
		case <-s.drain.halt:
			return
		case <-done:
			done = nil
			if d := s.cfg.Shutdown.DrainDeadline; d > 0 {
				t := time.NewTimer(d)
				defer t.Stop()
				due = t.C
			}
			s.calls.Server.Drain()
		case <-due:
			return
		}
	}
}

// obey does what the process in front says, in its order.
func (s *Server) obey(link *handover.Link, f handover.Frame) {
	switch f.Kind {
	case frameStray:
		var d netio.Stray
		if json.Unmarshal(f.Body, &d) == nil {
			s.calls.Inject(d)
		}
	case frameOrder:
		var o order
		if err := json.Unmarshal(f.Body, &o); err != nil {
			link.Reply(f, nil, err)
			return
		}
		out := carryOut(s.calls.Server, o)
		if f.ID != 0 {
			link.Reply(f, encode(out), nil)
		}
	}
}
