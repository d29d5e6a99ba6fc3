package audit_test

import (
	"sync"
	"testing"

	"rtcd/service/audit"
)

// TestPace shows CR-12 under a flood: one who makes events faster than they are written waits for that, so
// that none is lost, of his or of others, and nothing is refused because of him.
func TestPace(t *testing.T) {
	const floods, each = 8, 100
	loud, quiet := audit.Actor{Kind: audit.Client, ID: "loud"}, audit.Actor{Kind: audit.Client, ID: "quiet"}
	r := open(t, audit.Config{Dir: t.TempDir(), Queue: 64, OnFailure: audit.Block})
	var all sync.WaitGroup
	for range floods {
		all.Go(func() {
			for range each {
				r.Record(audit.Event{Type: "ws.leave", Actor: loud, Outcome: audit.MinorFailure})
				r.Pace(loud)
				if err := r.Ready(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	r.Record(audit.Event{Type: "ws.join", Actor: quiet})
	r.Pace(quiet)
	all.Wait()
	synced(t, r)
	if st := r.Stats(); st.Dropped != 0 || st.Written < floods*each {
		t.Errorf("%d dropped, %d written", st.Dropped, st.Written)
	}
	r.Pace(loud) // all is written
	closed(t, r)
	r.Pace(loud)
	(*audit.Recorder)(nil).Pace(loud)
}
