package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(0)
		allow := func(why string, want bool, wantHeld uint64) {
			t.Helper()
			if ok, held := l.Allow(why); ok != want || held != wantHeld {
				t.Errorf("%s after %v: %v %d, want %v %d", why, time.Now(), ok, held, want, wantHeld)
			}
		}
		allow("a", true, 0)
		allow("a", false, 0)
		allow("b", true, 0)
		time.Sleep(10*time.Second - 1)
		allow("a", false, 0)
		time.Sleep(time.Nanosecond)
		allow("a", true, 2)
		allow("a", false, 0)
		allow("b", true, 0)
	})
}

func TestLimiterLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(newHandler(&b, plainFormat(false), slog.LevelInfo))
		l := NewLimiter(time.Second)
		for range 3 {
			for range 5 {
				l.Log(t.Context(), log, slog.LevelWarn, "flood", "too many packets", slog.Int("n", 1))
				l.Log(t.Context(), log, slog.LevelDebug, "other", "not enabled")
			}
			time.Sleep(time.Second)
		}
		l.Flush(t.Context(), log)
		l.Flush(t.Context(), log) // nothing more
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != 4 {
			t.Fatalf("got %d lines:\n%s", len(lines), b.String())
		}
		for i, want := range []string{" n=1", " n=1 suppressed=4", " n=1 suppressed=4", " reason=flood suppressed=4"} {
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("line %d: %s, want %s", i, lines[i], want)
			}
		}
		if !strings.Contains(lines[0], " caller=limiter_test.go:") {
			t.Errorf("names another caller: %s", lines[0])
		}
	})
}

func TestLimiterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(time.Second)
		passed := 0
		for i := range 3 * maxReasons {
			if ok, _ := l.Allow(fmt.Sprint(i)); ok {
				passed++
			}
		}
		if passed != maxReasons+1 || len(l.reasons) != maxReasons+1 {
			t.Errorf("%d lines of %d reasons", passed, len(l.reasons))
		}
	})
}

func TestLimiterConcurrently(t *testing.T) {
	l := NewLimiter(time.Hour)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				l.Log(context.Background(), slog.New(slog.DiscardHandler), slog.LevelInfo, "r", "m")
				if ok, _ := l.Allow("a"); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 1 {
		t.Errorf("%d lines, want 1", passed.Load())
	}
}
