package rtc_test

import (
	"testing"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// What is measured of a session shows which way loses packets.
func TestSampleTellsLossByDirection(t *testing.T) {
	for _, c := range []struct {
		name     string
		up, down float64 // of s0
	}{{"up", 0.2, 0}, {"down", 0, 0.2}, {"none", 0, 0}} {
		t.Run(c.name, func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				if _, ok := r.backend.Server.LastSample("g", "s0"); ok {
					r.t.Error("a sample of nobody")
				}
				a, b := r.enter("s0", false, rtctest.EndpointConfig{}), r.enter("s1", false, rtctest.EndpointConfig{})
				r.publishVoice(a).set(20, 60)
				r.publishVoice(b).set(20, 60)
				r.wait(3 * time.Second)
				a.link.Up.Set(rtctest.Impairment{Loss: c.up})
				a.link.Down.Set(rtctest.Impairment{Loss: c.down})
				sum := make(map[string]report.Sample)
				for range 20 {
					r.wait(time.Second)
					for _, name := range []string{"s0", "s1"} {
						s, ok := r.backend.Server.LastSample("g", name)
						if !ok || s.State&report.HasVoice == 0 {
							r.t.Fatalf("%s: %+v %v", name, s, ok)
						}
						total := sum[name]
						total.Up.Packets += s.Up.Packets
						total.Up.Lost += s.Up.Lost
						total.Down.Told += s.Down.Told
						total.Down.Lost += s.Down.Lost
						total.RoundTrip = s.RoundTrip
						sum[name] = total
					}
				}
				check := func(what string, got, want float64) {
					r.t.Helper()
					if got < want-0.06 || got > want+0.06 || want == 0 && got > 0.01 {
						r.t.Errorf("%s: loss of %.3f, want %.2f", what, got, want)
					}
				}
				s0, s1 := sum["s0"], sum["s1"]
				if s1.Down.Told < 800 || s0.Up.Packets < 700 || s0.RoundTrip == 0 {
					r.t.Errorf("too little is known: %+v, %+v", s0, s1)
				}
				check("s0 up", s0.Up.Loss(), c.up)
				check("s0 down", s0.Down.Loss(), c.down)
				check("s1 up", s1.Up.Loss(), 0)
				check("s1 down", s1.Down.Loss(), 0)
			})
		})
	}
}

// The report says that media goes over TCP, and from which network, but no whole address.
func TestReportOfTCP(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.CallRecord = func(string, *report.Record) {} })
	for name, tcp := range map[string]bool{"ann": true, "ben": false} {
		connectAndPublish(ctx, t, b.Join(t, "g", "call", name, rtctest.EndpointConfig{TCPOnly: tcp}), name)
	}
	var findings []report.Finding
	networks := make(map[string]string)
	awaitThat(t, "the finding", func() bool {
		r, ok := b.Server.Record("g", "call")
		if !ok {
			t.Fatal("no record")
		}
		c := r.Open(time.Now().UnixMilli())
		for _, s := range c.Sessions {
			networks[s.ID] = s.Network
		}
		findings = report.Analyse(c)
		return len(findings) > 0
	})
	if f := findings[0]; len(findings) > 1 || f.Kind != report.Fallback || f.Session != "ann" {
		t.Errorf("found %+v", findings)
	}
	if networks["ann"] != "tcp 127.0.0.0/24" || networks["ben"] != "udp 127.0.0.0/24" {
		t.Errorf("they come from %q", networks)
	}
}
