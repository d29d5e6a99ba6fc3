package rtc

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
)

// BenchmarkSample is a sample of all of 1,000 sessions that are in calls, connected to nothing.
func BenchmarkSample(b *testing.B) {
	local := netip.MustParseAddrPort("127.0.0.1:0")
	s, err := NewServer(b.Context(), Config{UDPAddrs: []netip.AddrPort{local}, Engine: engine.Config{Local: []netip.Addr{local.Addr()}}, CallRecord: func(string, *report.Record) {}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	for i := range 1000 {
		info := SessionInfo{GroupID: "g", CallID: fmt.Sprint("c", i/10), SessionID: fmt.Sprint("s", i)}
		c := newCall("g", info.CallID, 1, 0, func() {}, s.events)
		ses := newSession(s, c, info, Grant{}, nil)
		peer := s.plane.NewPeer(forward.PeerConfig{CNAME: info.SessionID})
		ses.quality.media.Store(peer)
		b.Cleanup(peer.Close)
		s.mu.Lock()
		s.sessions[key{"g", info.SessionID}] = ses
		s.mu.Unlock()
	}
	b.Cleanup(func() {
		s.mu.Lock()
		clear(s.sessions)
		s.mu.Unlock()
	})
	m := &sampler{server: s}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		m.measure(now)
	}
}
