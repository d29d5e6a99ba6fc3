package quietlog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneLinePerReasonAndInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewTextHandler(&out, nil)))
		for range 25 { // one a second
			for range 100 {
				l.Warn("bad message")
				l.Warn("bad upgrade", "clientID", "c1")
			}
			time.Sleep(time.Second)
		}
		for _, reason := range []string{"bad message", "bad upgrade"} {
			if n := strings.Count(out.String(), reason); n != 3 {
				t.Errorf("%q: %d lines in 25 s, want 3", reason, n)
			}
		}
		if !strings.Contains(out.String(), "suppressed=999") {
			t.Errorf("nothing says how many lines were held back:\n%s", out.String())
		}
	})
}
