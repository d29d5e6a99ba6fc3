package rtc_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/rtctest"
)

// TestChurn (S13): speakers come and go, three at a time; who stays does not collect sections.
func TestChurn(t *testing.T) {
	const waves, together = 10, 3
	ctx := deadline(t, 80*time.Second)
	n := rtctest.NewNetwork(t)
	b := rtctest.NewBackend(t, n.Serve(t))
	host, _ := n.Host(t)
	listener := b.Join(t, "g", "call", "listener", rtctest.EndpointConfig{Net: host})
	if err := listener.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	for wave := range waves {
		var wg sync.WaitGroup
		for i := range together {
			name := fmt.Sprintf("w%ds%d", wave, i)
			host, _ := n.Host(t)
			e := b.Join(t, "g", "call", name, rtctest.EndpointConfig{Net: host})
			wg.Go(func() {
				if err := errors.Join(e.Connect(ctx), e.Publish(ctx, "voice_"+name)); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for k := uint32(0); listener.Heard(name).Packets < 5; k++ {
					if err := e.SendVoice(name, k, 30); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					select {
					case <-tick.C:
					case <-ctx.Done():
						t.Errorf("%s was not heard: %v", name, ctx.Err())
						return
					}
				}
				b.Server.Leave("g", name)
				e.Close()
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for i := range together {
			if h := listener.Heard(fmt.Sprintf("w%ds%d", wave, i)); h.Bad != 0 || len(h.TrackIDs) != 1 {
				t.Errorf("wave %d, speaker %d: %d changed packets, tracks %v", wave, i, h.Bad, h.TrackIDs)
			}
		}
	}
	sections := strings.Count(listener.PC().CurrentRemoteDescription().SDP, "m=audio")
	if limit := 2 * together; sections > limit {
		t.Errorf("the listener has %d sections after %d speakers, %d at a time; want at most %d",
			sections, waves*together, together, limit)
	}
	if err := listener.Err(); err != nil {
		t.Error(err)
	}
}

// openFiles counts the file descriptors of the process; -1 where the system does not say.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, fs.ErrNotExist) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestCyclesLeaveNothing: a thousand sessions that come, fail and go leave neither goroutines nor
// file descriptors nor anything in the gauges.
func TestCyclesLeaveNothing(t *testing.T) {
	ctx := deadline(t, 80*time.Second)
	b := rtctest.NewBackend(t, func(cfg *rtc.Config) { rtc.SetTimes(cfg, 0, 0, negotiate.Config{}) })
	offer := offerOfNobody(t)
	join := func(id string) {
		t.Helper()
		if err := b.Server.Join("g", wire.Join{CallID: "call" + id[:2], UserID: "u", SessionID: id}); err != nil {
			t.Errorf("join: %v", err)
		}
	}
	connect := func(id string) {
		e := b.Join(t, "g", "real", id, rtctest.EndpointConfig{TCPOnly: id[0] == 't'})
		if err := e.Connect(ctx); err != nil {
			t.Errorf("%s: connect: %v", id, err)
		}
		if id[1] == 'p' {
			if err := e.Publish(ctx, "voice"); err != nil {
				t.Errorf("%s: publish: %v", id, err)
			}
			for n := range uint32(3) {
				_ = e.SendVoice(id, n, 30)
			}
		}
		if id[len(id)-1]%2 == 0 {
			b.Server.Leave("g", id)
		}
		e.Close()
		b.Server.Leave("g", id)
	}
	connect("up0") // whatever is made once is made before the count
	connect("tp0")
	settle := func() (goroutines, files int) {
		runtime.GC()
		return runtime.NumGoroutine(), openFiles(t)
	}
	goroutines, files := settle()
	end := time.Now().Add(10 * time.Second)
	for time.Now().Before(end) { // until what the first ones left has ended
		time.Sleep(20 * time.Millisecond)
		g, f := settle()
		if g >= goroutines && f >= files {
			break
		}
		goroutines, files = g, f
	}

	const workers, rounds = 4, 250
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("%02d-%d-%d", i%5, w, i)
				switch {
				case i%25 == 0:
					kind := []string{"up", "tp", "un", "tn"}[(i/25)%4]
					connect(fmt.Sprintf("%s-%d-%d", kind, w, i))
				case i%4 == 0: // gone before it has offered
					join(id)
					b.Server.Leave("g", id)
				case i%4 == 1: // an offer that is none ends it
					join(id)
					_ = b.Server.Signal("g", id, wire.Signal{Type: wire.SignalSDP, Data: []byte(`{"type":"offer","sdp":"v=0\r\nx"}`)})
				case i%4 == 2: // twice
					join(id)
					join(id)
					b.Server.Leave("g", id)
					b.Server.Leave("g", id)
				default: // an offer, and away while ICE waits for the endpoint
					join(id)
					_ = b.Server.Signal("g", id, wire.Signal{Type: wire.SignalSDP, Data: []byte(offer)})
					_ = b.Server.Signal("g", id, wire.Signal{Type: wire.SignalICE, Data: []byte(`{"candidate":""}`)})
					if i%8 == 3 {
						if err := b.Await(ctx, id, func(events []rtc.Event) bool { return len(events) > 0 }); err != nil {
							t.Errorf("%s: no answer: %v", id, err)
						}
					}
					b.Server.Leave("g", id)
				}
			}
		})
	}
	wg.Wait()
	// Goroutines end after what they waited for is closed, and nobody says when.
	end = time.Now().Add(20 * time.Second)
	for {
		g, f := settle()
		if g <= goroutines && f <= files && b.Server.Count() == 0 {
			break
		}
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before; %d files, %d before; %d sessions\n%s",
				g, goroutines, f, files, b.Server.Count(), buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, name := range []string{"rtcd_rtc_sessions_total", "rtcd_rtc_rtp_tracks_total", "rtcd_api_panics_total"} {
		if got := metric(t, b.Metrics, name); got != 0 {
			t.Errorf("%s is %v", name, got)
		}
	}
}
