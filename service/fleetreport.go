package service

import (
	"context"
	"encoding/json"
	"time"

	"rtcd/service/handover"
	"rtcd/service/report"
)

// Reports on calls that former processes have: while such a call goes on, the process in front asks for what
// is known of it. Once it is over, the former process hands that over, as it does at first with what it
// keeps of calls that were over before.

// maxRecord bounds what is told of one call, in bytes as it is kept; on its way it takes half as much again.
// Sessions that left first are left out for that. It is far below what may wait on a link.
const maxRecord = 8 << 20

// recordTime bounds how long the process in front may take to take a record: another upgrade may come in
// between.
const recordTime = time.Minute

// A keptCall is what a former process knows of a call that is over.
type keptCall struct {
	Group  string
	Stored bool // in files
	Record *report.Record
}

// Record is that of rtc.Server.
func (f *fleet) Record(group, call string) (*report.Record, bool) {
	if o := f.ofCall(group, call); o != nil {
		if out, err := ask(o.link, order{Verb: orderRecord, Group: group, Call: call}); err == nil && out.Record != nil {
			return out.Record, out.Known
		}
	}
	return f.Server.Record(group, call)
}

// takeRecord keeps what a former process hands over, and tells it so.
func (f *fleet) takeRecord(l *handover.Link, fr handover.Frame) error {
	var k keptCall
	err := json.Unmarshal(fr.Body, &k)
	if err == nil && k.Record != nil && f.keep != nil {
		f.keep(k)
	}
	if fr.ID != 0 {
		l.Reply(fr, nil, nil)
	}
	return err
}

// adopt keeps a call of a former process, unless its client is gone, and tells of the report unless the
// call ended before this process was in front.
func (s *Server) adopt(k keptCall) {
	r := s.reports
	r.mu.Lock()
	wanted := k.Record.Started > max(r.allEnded, r.ended[k.Group])
	if wanted {
		r.addLocked(kept{client: k.Group, record: k.Record, stored: k.Stored})
	}
	r.mu.Unlock()
	if wanted && k.Record.Ended >= s.started.UnixMilli() {
		s.feed.ReportReady(k.Group, k.Record.ID)
	}
}

// bequeath hands over what is known of calls that are over, and of those that will be, one after the other.
// finish returns once all of that has been taken, or cannot be.
func (s *Server) bequeath(link *handover.Link) (finish func()) {
	r := s.reports
	if r == nil {
		return func() {}
	}
	queue, done := make(chan kept, maxReportWrites), make(chan struct{})
	r.mu.Lock()
	now := append([]kept(nil), r.kept...)
	r.heir = queue
	r.mu.Unlock()
	give := func(k kept) bool {
		record := *k.record
		record.Trim(maxRecord)
		ctx, cancel := context.WithTimeout(context.Background(), recordTime)
		defer cancel()
		_, err := link.Ask(ctx, frameRecord, encode(keptCall{Group: k.client, Stored: k.stored, Record: &record}))
		if err != nil {
			s.log.Warn("upgrade: reports of calls cannot be handed over", "err", err)
		}
		return err == nil
	}
	go func() {
		defer close(done)
		good := true
		for _, k := range now {
			if good = good && give(k); !good {
				break
			}
		}
		for k := range queue {
			good = good && give(k)
		}
	}()
	return func() {
		r.mu.Lock()
		r.heir = nil
		r.mu.Unlock()
		close(queue)
		<-done
	}
}
