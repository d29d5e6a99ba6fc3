package service

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"golang.org/x/time/rate"

	"rtcd/service/metrics"
	"rtcd/service/rtc"
)

// A server that has no room for a probe, or is draining, takes nothing of the link: who comes again is let.
func TestProbeThatFoundNoRoom(t *testing.T) {
	var fault error
	p := &probes{
		probe: func(context.Context, rtc.ProbeTransport, string, func(rtc.ProbeOutcome)) (string, error) {
			return "answer", fault
		},
		metrics: metrics.New(), log: slog.New(slog.DiscardHandler),
		byID: make(map[string]*invitation), byInviter: make(map[string]int), sources: make(map[netip.Prefix]*rate.Limiter),
	}
	token, err := p.Invite("", 0)
	if err != nil {
		t.Fatal(err)
	}
	offer := func() error {
		_, err := p.Offer(t.Context(), netip.MustParseAddr("192.0.2.1"), token.Token, "udp", "v=0")
		return err
	}
	for _, fault = range []error{rtc.ErrTooManyProbes, rtc.ErrDraining} {
		if err := offer(); !errors.Is(err, fault) {
			t.Errorf("%v: %v", fault, err)
		}
	}
	if fault = nil; offer() != nil {
		t.Error("not let after that")
	}
	if err := offer(); !errors.Is(err, errProbeToken) {
		t.Errorf("a second time: %v", err)
	}
}
