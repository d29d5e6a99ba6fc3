package rtc_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/netio"
	"rtcd/service/rtc/rtctest"
)

// withheld returns how many control packets budgets have cost those who sent them.
func withheld(s *rtc.Server) uint64 {
	d := s.Sockets().Drops
	return d[netio.DropSourceBudget] + d[netio.DropGlobalBudget]
}

// A company is behind one address when its meeting begins. That all of it joins at once makes nobody
// wait for what the server drops.
func TestManyJoinFromOneAddressAtOnce(t *testing.T) {
	const crowd = 40
	ctx := deadline(t, 90*time.Second)
	b := rtctest.NewBackend(t, func(c *rtc.Config) { rtc.SetTimes(c, time.Minute, time.Minute, negotiate.Config{}) })
	var endpoints []*rtctest.Endpoint
	for i := range crowd {
		endpoints = append(endpoints, b.Join(t, "g", "call", fmt.Sprint("s", i), rtctest.EndpointConfig{}))
	}
	var joining sync.WaitGroup
	for i, e := range endpoints {
		joining.Go(func() {
			if err := e.Connect(ctx); err != nil {
				t.Errorf("session %d: %v, %v", i, err, b.Events(fmt.Sprint("s", i)))
			}
		})
	}
	joining.Wait()
	if s := b.Server.Sockets(); withheld(b.Server) != 0 {
		t.Errorf("of %d control packets of joins some were dropped: %v", s.RxControl, s.Drops)
	}
}

// F20: who floods the port does not keep those behind the same address from joining.
func TestFloodFromOneAddressDoesNotStopItsJoins(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	var port netip.AddrPort
	b := rtctest.NewBackend(t, func(c *rtc.Config) { port = c.UDPAddrs[0] })
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(port))
	if err != nil {
		t.Fatal(err)
	}
	junk := [][]byte{
		append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...),              // a check for nobody
		append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200}, make([]byte, 200)...), // as if of DTLS
	}
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	flooding.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			for range 10 { // 4,000 packets per second
				for _, p := range junk {
					_, _ = conn.Write(p)
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	defer func() {
		close(stop)
		flooding.Wait()
		_ = conn.Close()
	}()
	for withheld(b.Server) < 1000 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the flood is not held up")
		}
	}
	slow := 0
	for i := range 10 {
		e := b.Join(t, "g", "call", fmt.Sprint("s", i), rtctest.EndpointConfig{})
		start := time.Now()
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		if time.Since(start) > 900*time.Millisecond { // a check or a flight was sent again
			slow++
		}
	}
	if slow > 2 {
		t.Errorf("%d of 10 joins were held up", slow)
	}
}
