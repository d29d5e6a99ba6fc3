package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rtcd/service/api"
	"rtcd/service/metrics"
	"rtcd/service/report"
)

// Limits that reports may hit.
const (
	LimitReports      metrics.Limit = "reports_per_client" // asked for too often
	LimitReportWrites metrics.Limit = "report_writes"      // too many to be written
)

// How often reports are made: they cost some milliseconds of a processor for each hour of a session.
const (
	reportsPerSecond = 2 // for one client, in the long run
	reportsBurst     = 30
	reportWait       = 5 * time.Second // for others that are being made
	maxReportClients = 10_000          // whose rates are known
	maxReportWrites  = 256             // reports that wait to be written
)

var (
	errReportsBusy  = api.Refuse(http.StatusServiceUnavailable, "busy", errors.New("too many reports are being made"))
	errReportsOften = api.Refuse(http.StatusTooManyRequests, "rate_limited", errors.New("reports are asked for too often"))
)

// reportsConfig is what reports is made of.
type reportsConfig struct {
	keepCalls int
	memory    int                                              // bytes
	files     *reportFiles                                     // nil: none
	record    func(client, call string) (*report.Record, bool) // of a call that goes on
	limit     func(metrics.Limit)
	log       *slog.Logger
}

// reports makes reports on calls, and keeps what they are made of for a while after the calls.
type reports struct {
	cfg    reportsConfig
	making chan struct{} // holds a token while a report is made
	writes chan *awaited
	done   chan struct{}
	wait   sync.WaitGroup

	mu       sync.Mutex
	kept     []kept // the oldest first
	bytes    int
	rates    map[string]*asker // by client
	awaited  map[*awaited]bool // in writes, or about to be written; true: of a client that was forgotten
	ended    map[string]int64  // when clients were forgotten, in ms since 1970
	allEnded int64             // when all may have been
	heir     chan<- kept       // takes the calls of a former process; nil: this is none
	closed   bool              // nothing is written any more
}

// An asker is a client that asks for reports.
type asker struct {
	rate *rate.Limiter
	turn chan struct{} // holds a token while it waits, or one of its reports is made
}

// kept is a call that is over.
type kept struct {
	client string
	record *report.Record
	size   int
	stored bool // or waits for it
}

// awaited is a call whose report waits to be written.
type awaited struct{ kept }

// openReports makes the reports on calls.
func (s *Server) openReports() error {
	c := s.cfg.Report
	if !c.Enable {
		return nil
	}
	cfg := reportsConfig{
		keepCalls: c.KeepCalls, memory: c.MemoryMiB << 20, limit: s.metrics.LimitHit, log: s.log,
		record: func(client, call string) (*report.Record, bool) { return s.calls.Record(client, call) },
	}
	if c.Dir != "" {
		files, err := openReportFiles(c.Dir, int64(c.KeepMiB)<<20, c.KeepFor)
		if err != nil {
			return err
		}
		cfg.files = files
	}
	s.reports = newReports(cfg)
	s.onClose(s.reports.close)
	return nil
}

func newReports(cfg reportsConfig) *reports {
	r := &reports{
		cfg: cfg, making: make(chan struct{}, 1), writes: make(chan *awaited, maxReportWrites), done: make(chan struct{}),
		rates: make(map[string]*asker), awaited: make(map[*awaited]bool), ended: make(map[string]int64),
	}
	if cfg.files != nil {
		r.wait.Go(r.write)
	}
	return r
}

// close writes what is to be written, and ends.
func (r *reports) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.done)
	r.wait.Wait()
	return nil
}

// add keeps a call that is over. It does not block.
func (r *reports) add(client string, record *report.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(kept{client: client, record: record})
}

// addLocked keeps a call, after those that ended before it.
func (r *reports) addLocked(k kept) {
	k.size = k.record.Size()
	if r.cfg.files != nil && !r.closed && !k.stored {
		a := &awaited{k}
		select {
		case r.writes <- a:
			k.stored, r.awaited[a] = true, false
		default:
			r.cfg.limit(LimitReportWrites)
		}
	}
	i := len(r.kept)
	for i > 0 && r.kept[i-1].record.Ended > k.record.Ended {
		i--
	}
	r.kept = slices.Insert(r.kept, i, k)
	r.bytes += k.size
	r.pruneLocked(k.client)
	if r.heir != nil {
		select {
		case r.heir <- k:
		default:
			r.cfg.limit(LimitReportWrites)
		}
	}
}

// pruneLocked forgets the oldest calls: of one client, and then of whoever has the most to remember, so that
// none drives out those of others.
func (r *reports) pruneLocked(client string) {
	n := 0
	for i := len(r.kept) - 1; i >= 0; i-- {
		if r.kept[i].client != client {
			continue
		}
		if n++; n > r.cfg.keepCalls {
			r.dropLocked(i)
		}
	}
	for r.bytes > r.cfg.memory && len(r.kept) > 0 {
		r.dropLocked(r.oldestOfLargestLocked())
	}
}

// oldestOfLargestLocked returns the oldest call of the client whose calls take the most.
func (r *reports) oldestOfLargestLocked() int {
	sizes := make(map[string]int)
	for _, k := range r.kept {
		sizes[k.client] += k.size
	}
	largest := 0
	for i, k := range r.kept {
		if sizes[k.client] > sizes[r.kept[largest].client] {
			largest = i
		}
	}
	return largest
}

func (r *reports) dropLocked(i int) {
	r.bytes -= r.kept[i].size
	r.kept = slices.Delete(r.kept, i, i+1)
}

// forget forgets all calls of a client: its id may be another's soon.
func (r *reports) forget(client string) {
	r.mu.Lock()
	for i := len(r.kept) - 1; i >= 0; i-- {
		if r.kept[i].client == client {
			r.dropLocked(i)
		}
	}
	delete(r.rates, client)
	now := time.Now().UnixMilli()
	if len(r.ended) >= maxReportClients { // as if all had been
		clear(r.ended)
		r.allEnded = now
	}
	r.ended[client] = now
	for a := range r.awaited {
		if a.client == client {
			r.awaited[a] = true
		}
	}
	r.mu.Unlock()
	if r.cfg.files == nil {
		return
	}
	r.making <- struct{}{} // what is being written is there then, and nothing is written after it
	defer func() { <-r.making }()
	r.cfg.files.forget(client)
}

// find returns the record of the latest call of that id, or of the one that began then; nil: there is none
// in memory.
func (r *reports) find(client, call string, started int64) *report.Record {
	if now, ok := r.cfg.record(client, call); ok && (started == 0 || now.Started == started) {
		return now
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range slices.Backward(r.kept) {
		if k.client == client && k.record.ID == call && (started == 0 || k.record.Started == started) {
			return k.record
		}
	}
	return nil
}

// endSlack is how long before its end is told of a call its record may say that it ended.
const endSlack = 10 * time.Second

// keeps reports whether there is a record of the call of that id that ended then.
func (r *reports) keeps(client, call string, ended time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range slices.Backward(r.kept) {
		if k.client == client && k.record.ID == call && k.record.Ended >= ended.Add(-endSlack).UnixMilli() {
			return true
		}
	}
	return false
}

// Report implements api.Reports.
func (r *reports) Report(ctx context.Context, client, call string, started int64, f api.ReportFormat) ([]byte, error) {
	turn, ok := r.allowed(client)
	if !ok {
		r.cfg.limit(LimitReports)
		return nil, errReportsOften
	}
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	for _, c := range []chan struct{}{turn, r.making} { // clients take turns, however often one asks
		select {
		case c <- struct{}{}:
			defer func() { <-c }()
		case <-ctx.Done():
			return nil, errReportsBusy
		}
	}
	if record := r.find(client, call, started); record != nil {
		return renderReport(record, f)
	}
	if r.cfg.files != nil {
		return r.cfg.files.read(client, call, started, f)
	}
	return nil, api.ErrNoReport
}

// allowed reports whether a client may have another report now, in its turn.
func (r *reports) allowed(client string) (turn chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.rates[client]
	if a == nil {
		if len(r.rates) >= maxReportClients {
			clear(r.rates)
		}
		a = &asker{rate: rate.NewLimiter(reportsPerSecond, reportsBurst), turn: make(chan struct{}, 1)}
		r.rates[client] = a
	}
	return a.turn, a.rate.Allow()
}

// renderReport makes a report.
func renderReport(record *report.Record, f api.ReportFormat) ([]byte, error) {
	call := record.Open(time.Now().UnixMilli())
	return renderCall(call, report.Analyse(call), f)
}

func renderCall(call *report.Call, findings []report.Finding, f api.ReportFormat) ([]byte, error) {
	if f == api.ReportHTML {
		var b bytes.Buffer
		if err := call.Page(&b, findings); err != nil {
			return nil, err
		}
		return b.Bytes(), nil
	}
	return json.Marshal(call.Document(findings))
}

// write writes reports to files until it is closed, and then those that wait.
func (r *reports) write() {
	old := time.NewTicker(pruneEvery)
	defer old.Stop()
	for {
		select {
		case k := <-r.writes:
			r.writeOne(k)
		case <-old.C: // also if no call ends
			r.making <- struct{}{}
			if err := r.cfg.files.prune(0); err != nil {
				r.cfg.log.Warn("remove old reports", "err", err)
			}
			<-r.making
		case <-r.done:
			for {
				select {
				case k := <-r.writes:
					r.writeOne(k)
				default:
					return
				}
			}
		}
	}
}

func (r *reports) writeOne(k *awaited) {
	r.making <- struct{}{}
	defer func() { <-r.making }()
	r.mu.Lock()
	gone := r.awaited[k]
	delete(r.awaited, k)
	r.mu.Unlock()
	if gone {
		return
	}
	call := k.record.Open(time.Now().UnixMilli())
	findings := report.Analyse(call)
	bodies := make(map[api.ReportFormat][]byte, 2)
	for _, f := range []api.ReportFormat{api.ReportJSON, api.ReportHTML} {
		body, err := renderCall(call, findings, f)
		if err != nil {
			r.cfg.log.Error("make report", "groupID", k.client, "callID", call.ID, "err", err)
			return
		}
		bodies[f] = body
	}
	if err := r.cfg.files.write(k.client, call.ID, call.Started, bodies); err != nil {
		r.cfg.log.Warn("write report", "groupID", k.client, "callID", call.ID, "err", err)
	}
}
