package service

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"rtcd/service/api"
	"rtcd/service/report"
)

// However much one client has and asks for, it neither drives out the calls of others nor makes them wait for
// more than one report.
func TestReportsAreShared(t *testing.T) {
	each := recordOf("c0", anyTime).Size()
	r, _ := keeping(t, func(c *reportsConfig) { c.keepCalls, c.memory = 1000, 4*each+each/2 })
	r.add("quiet", recordOf("c0", anyTime))
	for i := range 50 {
		r.add("busy", recordOf(fmt.Sprint("c", i%10), anyTime))
	}
	if !has(t, r, "quiet", "c0") {
		t.Error("a client has driven out the call of another")
	}

	entered, leave := make(chan struct{}, reportsBurst), make(chan struct{})
	r, _ = keeping(t, func(c *reportsConfig) {
		c.record = func(client, _ string) (*report.Record, bool) {
			if client == "busy" {
				entered <- struct{}{}
				<-leave
			}
			return nil, false
		}
	})
	var asked sync.WaitGroup
	for range 10 {
		asked.Go(func() { _, _ = r.Report(t.Context(), "busy", "c", 0, api.ReportJSON) })
	}
	<-entered
	turn, _ := r.allowed("busy")
	got := make(chan error, 1)
	asked.Go(func() {
		_, err := r.Report(t.Context(), "quiet", "c", 0, api.ReportJSON)
		got <- err
	})
	waits := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		a := r.rates["quiet"]
		return a != nil && len(a.turn) == 1
	}
	for end := time.Now().Add(10 * time.Second); !waits(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a client does not wait for the report of another")
		}
	}
	leave <- struct{}{} // one report is done: the other client is next, or soon
	select {
	case err := <-got:
		if !errors.Is(err, api.ErrNoReport) {
			t.Error(err)
		}
	case leave <- struct{}{}:
		if err := <-got; !errors.Is(err, api.ErrNoReport) {
			t.Error(err)
		}
	}
	close(leave)
	asked.Wait()
	if len(turn) != 0 || len(r.making) != 0 {
		t.Error("a turn was not given back")
	}
}
