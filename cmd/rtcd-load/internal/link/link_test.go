package link_test

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/cmd/rtcd-load/internal/link"
)

// pass sends datagrams from an impaired socket to a plain one and back, and returns how many came back.
func pass(t *testing.T, up, down link.Impairment, datagrams int, counts *link.Counts) (echoed int, first time.Duration) {
	t.Helper()
	var ports link.Ports
	n, err := link.New(up, down, counts, &ports, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { n.Run(ctx) })
	echo, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			size, from, err := echo.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(b[:size], from)
		}
	})
	c, err := n.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	came := make(chan time.Duration, datagrams)
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			if _, _, err := c.ReadFrom(b); err != nil {
				return
			}
			came <- time.Since(began)
		}
	})
	want := datagrams
	for range datagrams {
		if _, err := c.WriteTo([]byte("datagram"), echo.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	idle := time.NewTimer(2 * time.Second)
	for echoed < want {
		select {
		case at := <-came:
			if echoed++; echoed == 1 {
				first = at
			}
			want = datagrams - int(counts.LostUp.Load()+counts.LostDown.Load())
			idle.Reset(2 * time.Second)
		case <-idle.C:
			want = echoed
		}
	}
	_ = echo.Close()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	cancel()
	wg.Wait()
	return echoed, first
}

func TestLossIsCounted(t *testing.T) {
	var counts link.Counts
	echoed, _ := pass(t, link.Impairment{Loss: 0.2}, link.Impairment{Loss: 0.1}, 200, &counts)
	lost := int(counts.LostUp.Load() + counts.LostDown.Load())
	if echoed+lost != 200 {
		t.Errorf("%d came back and %d were lost, want 200 together", echoed, lost)
	}
	if up := counts.LostUp.Load(); up < 15 || up > 75 {
		t.Errorf("%d of 200 lost on the way up, want some 40", up)
	}
	if counts.Sent.Load() != 200 {
		t.Errorf("sent %d, want 200", counts.Sent.Load())
	}
}

func TestDelayBothWays(t *testing.T) {
	var counts link.Counts
	up := link.Impairment{Delay: 30 * time.Millisecond}
	down := link.Impairment{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond}
	echoed, first := pass(t, up, down, 50, &counts)
	if echoed != 50 || first < 50*time.Millisecond {
		t.Errorf("%d came back, the first after %v, want 50 after 50ms", echoed, first)
	}
}

func TestPortsDropped(t *testing.T) {
	var ports link.Ports
	n, err := link.New(link.Impairment{}, link.Impairment{}, &link.Counts{}, &ports, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	port := c.LocalAddr().(*net.UDPAddr).Port
	table := func(drops string) *strings.Reader {
		const head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
		const line = "  12: 0100007F:PORT 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 "
		hex := strings.ToUpper(string([]byte{digit(port >> 12), digit(port >> 8), digit(port >> 4), digit(port)}))
		return strings.NewReader(head + strings.Replace(line, "PORT", hex, 1) + drops + "\n" +
			strings.Replace(line, "PORT", "0001", 1) + "99\nnonsense\n")
	}
	ports.Dropped(table("5"))
	if got := ports.Dropped(table("7")); got != 7 {
		t.Errorf("got %d dropped, want 7", got)
	}
}

func digit(n int) byte { return "0123456789abcdef"[n&15] }

func TestSourcesTakeTurns(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	sources := &link.Sources{Addresses: []net.IP{net.IPv4(127, 0, 1, 1), net.IPv4(127, 0, 1, 2)}}
	n, err := link.New(link.Impairment{}, link.Impairment{}, &link.Counts{}, &link.Ports{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"127.0.1.1", "127.0.1.2", "127.0.1.1"} {
		c, err := n.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.LocalAddr().(*net.UDPAddr).IP.String(); got != want {
			t.Errorf("bound to %s, want %s", got, want)
		}
		_ = c.Close()
	}
}
