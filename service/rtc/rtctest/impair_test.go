package rtctest_test

import (
	"encoding/binary"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v4"

	"rtcd/service/rtc/rtctest"
)

// received is a numbered datagram that came.
type received struct {
	number uint32
	at     time.Time
	delay  time.Duration
}

// impaired is a sender and a receiver behind a link.
type impaired struct {
	from, to transport.UDPConn
	link     *rtctest.Link
	next     uint32
}

func newImpaired(t *testing.T) *impaired {
	t.Helper()
	n := rtctest.NewNetwork(t)
	plain, _ := n.Host(t)
	host, addr, link := n.ImpairedHost(t)
	to, err := host.ListenUDP("udp4", &net.UDPAddr{IP: addr.AsSlice(), Port: 5000})
	if err != nil {
		t.Fatal(err)
	}
	from, err := plain.DialUDP("udp4", nil, &net.UDPAddr{IP: addr.AsSlice(), Port: 5000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = from.Close()
		_ = to.Close()
	})
	return &impaired{from: from, to: to, link: link}
}

// run sends count datagrams of that size, one each period, and returns what came until all were
// sent and nothing came for the time quiet.
func (p *impaired) run(t *testing.T, count, size int, period, quiet time.Duration) []received {
	t.Helper()
	done := make(chan []received)
	var sentAll atomic.Bool
	go func() {
		var got []received
		b := make([]byte, 2000)
		for {
			last := sentAll.Load()
			if err := p.to.SetReadDeadline(time.Now().Add(quiet)); err != nil {
				t.Error(err)
			}
			n, _, err := p.to.ReadFrom(b)
			if err != nil {
				if os.IsTimeout(err) && !last {
					continue
				}
				if !os.IsTimeout(err) {
					t.Error(err)
				}
				done <- got
				return
			}
			if n != size {
				t.Errorf("datagram of %d bytes, want %d", n, size)
			}
			now := time.Now()
			sent := time.Unix(0, int64(binary.BigEndian.Uint64(b[4:])))
			got = append(got, received{binary.BigEndian.Uint32(b), now, now.Sub(sent)})
		}
	}()
	b := make([]byte, size)
	start := time.Now()
	for i := range count {
		if wait := time.Until(start.Add(time.Duration(i) * period)); wait > 0 {
			time.Sleep(wait) // the pace is what is tested
		}
		binary.BigEndian.PutUint32(b, p.next)
		binary.BigEndian.PutUint64(b[4:], uint64(time.Now().UnixNano()))
		p.next++
		if _, err := p.from.Write(b); err != nil {
			t.Error(err)
		}
	}
	sentAll.Store(true)
	return <-done
}

func ordered(got []received) bool {
	for i := 1; i < len(got); i++ {
		if got[i].number <= got[i-1].number {
			return false
		}
	}
	return true
}

func TestLinkPassesAll(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	if got := p.run(t, 500, 100, 100*time.Microsecond, time.Second); len(got) != 500 || !ordered(got) {
		t.Errorf("%d of 500 came, in order: %t", len(got), ordered(got))
	}
	if s := p.link.Down.Passed(); s.Offered != 500 || s.Delivered != 500 || s.Bytes != 500*128 {
		t.Errorf("counted %+v", s)
	}
}

// How accurate a link is is tested in its own time, because the machine's may be short. Here it is
// only that links do to datagrams what they decide, and that nothing comes sooner than it may.
func TestLinkRateInRealTime(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	const size, rate = 972, 2_000_000
	p.link.Down.Set(rtctest.Impairment{Rate: rate, Queue: 100 * time.Millisecond})
	start := time.Now()
	got := p.run(t, 500, size, time.Millisecond, 500*time.Millisecond)
	if len(got) == 0 || !ordered(got) {
		t.Fatalf("%d came, in order: %t", len(got), ordered(got))
	}
	if took, least := got[len(got)-1].at.Sub(start), time.Duration(len(got))*4*time.Millisecond; took < least {
		t.Errorf("%d datagrams came after %v, sooner than %v", len(got), took, least)
	}
	if s := p.link.Down.Passed(); s.Offered != 500 || s.Dropped == 0 || s.Delivered != len(got) || s.Delivered+s.Dropped != 500 {
		t.Errorf("counted %+v", s)
	}
}

func TestLinkLoss(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Loss: 0.2})
	got := p.run(t, 500, 100, 100*time.Microsecond, 500*time.Millisecond)
	if s := p.link.Down.Passed(); s.Lost < 50 || s.Lost+len(got) != 500 || !ordered(got) {
		t.Errorf("%d came in order: %t, counted %+v", len(got), ordered(got), s)
	}
	p.link.Set(rtctest.Impairment{Loss: 1})
	if got := p.run(t, 20, 100, 0, 200*time.Millisecond); len(got) != 0 {
		t.Errorf("%d came over a dead link", len(got))
	}
}

func TestLinkDelay(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Delay: 100 * time.Millisecond, Jitter: 30 * time.Millisecond})
	got := p.run(t, 200, 100, 2*time.Millisecond, 500*time.Millisecond)
	if len(got) != 200 || !ordered(got) {
		t.Fatalf("%d of 200 came, in order: %t", len(got), ordered(got))
	}
	soonest := time.Hour
	for _, r := range got {
		soonest = min(soonest, r.delay)
	}
	if soonest < 99*time.Millisecond || soonest > 300*time.Millisecond {
		t.Errorf("the soonest came after %v", soonest)
	}
}

func TestLinkReordersAndDuplicates(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Reorder: 0.2, Hold: 50 * time.Millisecond, Duplicate: 0.1})
	got := p.run(t, 500, 100, time.Millisecond, 500*time.Millisecond)
	seen := map[uint32]int{}
	for _, r := range got {
		seen[r.number]++
	}
	s := p.link.Down.Passed()
	if len(seen) != 500 || len(got) != 500+s.Duplicated || s.Duplicated == 0 || s.Reordered == 0 || ordered(got) {
		t.Errorf("%d datagrams of 500 came, %d in all, in order: %t, counted %+v", len(seen), len(got), ordered(got), s)
	}
}

// TestLinkChangesWhileItRuns: what is on its way arrives, and what comes after a change by the new
// rules.
func TestLinkChangesWhileItRuns(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Delay: 200 * time.Millisecond})
	go func() {
		for p.link.Down.Passed().Offered < 10 {
			time.Sleep(time.Millisecond) // there is no event for it
		}
		p.link.Down.Set(rtctest.Impairment{})
	}()
	got := p.run(t, 20, 100, 5*time.Millisecond, 500*time.Millisecond)
	if len(got) != 20 || !ordered(got) {
		t.Errorf("%d of 20 came, in order: %t", len(got), ordered(got))
	}
}
