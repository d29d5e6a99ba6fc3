package rtc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc"
)

// A restart that has brought the media back is in the report of the call, and told as a move: a participant
// is reconnected only after it was disconnected.
func TestRestartIsReported(t *testing.T) {
	d := newDiary()
	m := startMoving(t, false, func(cfg *rtc.Config) {
		cfg.CallRecord, cfg.CallEvent = func(string, *report.Record) {}, d.note
	})
	m.net.kill()
	m.await(t, m.ben, "ann", 20)
	m.await(t, m.ann, "ben", 20)
	d.await(t, "call", "participant.moved ann")
	var c *report.Call
	events := func(session string) (kinds []report.EventKind) {
		r, ok := m.b.Server.Record("g", "call")
		if !ok {
			t.Fatal("no record")
		}
		c = r.Open(time.Now().UnixMilli())
		for _, s := range c.Sessions {
			for _, e := range s.Events {
				if s.ID == session {
					kinds = append(kinds, e.Kind)
				}
			}
		}
		return kinds
	}
	awaitThat(t, "the restart in the record", func() bool { return slices.Contains(events("ann"), report.Restarted) })
	if slices.Contains(events("ben"), report.Restarted) {
		t.Error("another has restarted as well")
	}
	i := slices.IndexFunc(report.Analyse(c), func(f report.Finding) bool { return f.Kind == report.Restart })
	if i < 0 || report.Analyse(c)[i].Session != "ann" {
		t.Errorf("findings %+v", report.Analyse(c))
	}
	away := 0
	for _, line := range d.lines("call") {
		switch {
		case strings.HasPrefix(line, "participant.disconnected ann"):
			away++
		case strings.HasPrefix(line, "participant.reconnected ann"):
			away--
		}
		if away < 0 || away > 1 {
			t.Fatalf("disconnected and reconnected do not alternate: %q", d.lines("call"))
		}
	}
	t.Logf("%v, %q", events("ann"), d.lines("call"))
}
