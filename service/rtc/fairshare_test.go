package rtc_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// A crowd is a call of one client on real sockets in which everybody talks.
type crowd struct {
	names     []string
	endpoints map[string]*rtctest.Endpoint
}

func gather(ctx context.Context, t *testing.T, b *rtctest.Backend, group string, n int) *crowd {
	t.Helper()
	c := &crowd{endpoints: make(map[string]*rtctest.Endpoint)}
	for i := range n {
		name := fmt.Sprintf("%s%d", group, i)
		c.names = append(c.names, name)
		c.endpoints[name] = b.Join(t, group, "call", name, rtctest.EndpointConfig{})
		connectAndPublish(ctx, t, c.endpoints[name], name)
	}
	return c
}

// talk sends packets number from to to of everybody, so many at a time every 20 ms.
func (c *crowd) talk(t *testing.T, from, to uint32, atOnce int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := from; n < to; {
		for range atOnce {
			for _, name := range c.names {
				if err := c.endpoints[name].SendVoice(name, n, 30); err != nil {
					t.Errorf("%s: send: %v", name, err)
					return
				}
			}
			n++
		}
		<-tick.C
	}
}

// await waits until everybody has heard packet n of everybody else, or longer than it can take.
func (c *crowd) await(ctx context.Context, n uint32) {
	for _, name := range c.names {
		_ = c.endpoints[name].Await(ctx, func(heard func(string) rtctest.Heard) bool {
			for _, other := range c.names {
				if h := heard(other).Numbers; other != name && (len(h) == 0 || h[len(h)-1] < n) {
					return false
				}
			}
			return true
		})
	}
}

// missing counts what of the packets from to to everybody should have heard of the others, and what of
// it did not come.
func (c *crowd) missing(from, to uint32) (missing, of int) {
	for _, name := range c.names {
		for _, other := range c.names {
			if other == name {
				continue
			}
			came := make(map[uint32]bool)
			for _, n := range c.endpoints[name].Heard(other).Numbers {
				came[n] = true
			}
			for n := from; n < to; n++ {
				of++
				if !came[n] {
					missing++
				}
			}
		}
	}
	return missing, of
}

// TestFairShare: one client sends ten times what it sent before, far over its share, on the sockets of
// the kernel. It gets its share and no more, which is counted and told with the name of the setting;
// of another client's voices, by their numbers from end to end, less than 0.1 % is lost.
func TestFairShare(t *testing.T) {
	const (
		seconds = 8
		perSec  = 50
		people  = 3
		// Of one voice: 96 bytes of payload at most, and at most 12 + 8 + 16 of header, level and tag.
		voice = perSec * (100 + 12 + 8 + 16) * 8
		share = 2 * people * voice
	)
	ctx := deadline(t, 90*time.Second)
	log := &logged{}
	b := rtctest.NewBackend(t, func(c *rtc.Config) {
		c.Limits.BitratePerClient = share
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	quiet, loud := gather(ctx, t, b, "quiet", people), gather(ctx, t, b, "loud", people)
	for _, c := range []*crowd{quiet, loud} { // until all are negotiated
		all, stop := c, make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := uint32(0); ; n++ {
				all.talk(t, n, n+1, 1)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		c.await(ctx, 10)
		close(stop)
		wg.Wait()
	}
	if n := metricOf(t, b.Metrics, "rtcd_limit_hits_total", string(rtc.LimitBitrate)); n != 0 {
		t.Fatalf("limit hit %v times by those who keep to it", n)
	}
	const begin, end = 10_000, 10_000 + seconds*perSec
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { quiet.talk(t, begin, end, 1) })
	wg.Go(func() { loud.talk(t, begin, begin+10*seconds*perSec, 10) })
	wg.Wait()
	took := time.Since(start) + time.Second
	last, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	quiet.await(last, end-1)
	missing, of := quiet.missing(begin, end)
	t.Logf("of the quiet client's %d packets %d did not come", of, missing)
	if of != people*(people-1)*seconds*perSec || missing*1000 >= of {
		t.Errorf("%d of %d packets of a client that keeps to its share did not come", missing, of)
	}
	missing, of = loud.missing(begin, begin+10*seconds*perSec)
	t.Logf("of the loud client's %d packets %d did not come", of, missing)
	// It may have a second's worth at once, and its share in each second; packets are at least 90 bytes.
	if most := int(took.Seconds()+1) * share / 8 / 90 * (people - 1); of-missing > most || of == missing {
		t.Errorf("%d packets of the loud client came, want %d at most", of-missing, most)
	}
	if n := metricOf(t, b.Metrics, "rtcd_media_drops_total", "client_rate"); n < seconds*perSec*people {
		t.Errorf("%v packets dropped for the client's rate, want most of those beyond its share", n)
	}
	if err := b.Server.Close(); err != nil {
		t.Fatal(err)
	}
	if n, dropped := metricOf(t, b.Metrics, "rtcd_limit_hits_total", string(rtc.LimitBitrate)),
		metricOf(t, b.Metrics, "rtcd_media_drops_total", "client_rate"); n != dropped {
		t.Errorf("limit hit %v times, %v packets dropped", n, dropped)
	}
	if !log.has("rtc.limits.bitrate_per_client", "groupID=loud") || log.has("groupID=quiet") {
		t.Error("no log line of the loud client that names the setting, or one of the quiet one")
	}
}
