package logging

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Of a flood come three lines in ten seconds, per message and value of the attributes named, wherever
// these were given; the next one says how many are missing.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := Quiet(slog.New(newHandler(&b, plainFormat(false), slog.LevelInfo)), "client", "kind")
		one, two := log.With("client", "c1", "conn", "x"), log.With("client", "c2")
		for range 2 {
			for i := range 1000 {
				one.Info("connected", "kind", "a", "n", i)
				one.Info("connected", "kind", "b")
				two.Info("connected", "kind", "a")
				two.Debug("not enabled", "kind", "a")
				log.WithGroup("g").Warn("bad")
			}
			time.Sleep(10 * time.Second)
		}
		for part, want := range map[string]int{
			"client=c1 conn=x kind=a": 6, "client=c1 conn=x kind=b": 6, "client=c2 kind=a": 6, "bad": 6, "suppressed=997": 4, "not enabled": 0,
		} {
			if n := strings.Count(b.String(), part); n != want {
				t.Errorf("%q: %d lines, want %d", part, n, want)
			}
		}
		if !strings.Contains(b.String(), " caller=quiet_test.go:") {
			t.Errorf("another caller: %s", b.String())
		}
	})
}

// Reasons of long ago give way to new ones, so that floods of them silence nobody for good.
func TestLimiterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(time.Second)
		for range 3 {
			for i := range maxReasons {
				if ok, _ := l.Allow(string(rune('a' + i))); !ok {
					t.Fatal("held back")
				}
			}
			time.Sleep(time.Second)
			if ok, _ := l.Allow("new"); !ok || len(l.reasons) != 1 {
				t.Errorf("%d reasons are remembered", len(l.reasons))
			}
			time.Sleep(time.Second)
		}
	})
}
