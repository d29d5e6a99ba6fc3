package rtctest_test

import (
	"encoding/binary"
	"net"
	"os"
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

// run sends count datagrams of that size, one each period, and returns what came until nothing
// did for the time quiet.
func (p *impaired) run(t *testing.T, count, size int, period, quiet time.Duration) []received {
	t.Helper()
	done := make(chan []received)
	go func() {
		var got []received
		b := make([]byte, 2000)
		for {
			if err := p.to.SetReadDeadline(time.Now().Add(quiet)); err != nil {
				t.Error(err)
			}
			n, _, err := p.to.ReadFrom(b)
			if err != nil {
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
	if got := p.run(t, 500, 100, 100*time.Microsecond, 100*time.Millisecond); len(got) != 500 || !ordered(got) {
		t.Errorf("%d of 500 came, in order: %t", len(got), ordered(got))
	}
	if s := p.link.Down.Passed(); s.Offered != 500 || s.Delivered != 500 || s.Bytes != 500*128 {
		t.Errorf("counted %+v", s)
	}
}

func TestLinkRate(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	const size = 1000
	for _, rate := range []int{1_000_000, 4_000_000} {
		p.link.Down.Set(rtctest.Impairment{Rate: rate, Queue: 100 * time.Millisecond})
		// Twice of what passes, for a second.
		count := 2 * rate / 8 / size
		got := p.run(t, count, size, time.Second/time.Duration(count), 300*time.Millisecond)
		span := got[len(got)-1].at.Sub(got[0].at)
		measured := float64(len(got)-1) * (size + 28) * 8 / span.Seconds()
		if r := measured / float64(rate); r < 0.9 || r > 1.1 || !ordered(got) {
			t.Errorf("%.0f bit/s came over %d, in order: %t", measured, rate, ordered(got))
		}
	}
	s := p.link.Down.Passed()
	if s.QueueMax < 80*time.Millisecond || s.QueueMax > 100*time.Millisecond || s.Dropped == 0 || s.Lost != 0 ||
		s.Offered != s.Delivered+s.Dropped {
		t.Errorf("counted %+v", s)
	}
}

func TestLinkQueueOfBytes(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Rate: 1_000_000, Queue: time.Minute, QueueBytes: 10_000})
	got := p.run(t, 50, 972, 0, 300*time.Millisecond)
	// Ten wait and one is on its way.
	if len(got) < 10 || len(got) > 13 {
		t.Errorf("%d of a burst of 50 came over a queue for 10", len(got))
	}
}

func TestLinkLoss(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Loss: 0.2})
	got := p.run(t, 2000, 100, 100*time.Microsecond, 100*time.Millisecond)
	if n := len(got); n < 1500 || n > 1700 || !ordered(got) { // five standard deviations and more
		t.Errorf("%d of 2000 came with a loss of 20 %%", n)
	}
	if s := p.link.Down.Passed(); s.Lost+len(got) != 2000 {
		t.Errorf("counted %+v", s)
	}
	p.link.Set(rtctest.Impairment{Loss: 1})
	if got := p.run(t, 20, 100, 0, 50*time.Millisecond); len(got) != 0 {
		t.Errorf("%d came over a dead link", len(got))
	}
}

func TestLinkDelay(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Delay: 100 * time.Millisecond, Jitter: 30 * time.Millisecond})
	got := p.run(t, 200, 100, 2*time.Millisecond, 300*time.Millisecond)
	if len(got) != 200 || !ordered(got) {
		t.Fatalf("%d of 200 came, in order: %t", len(got), ordered(got))
	}
	late := 0
	for _, r := range got {
		if r.delay < 99*time.Millisecond {
			t.Fatalf("number %d came after %v", r.number, r.delay)
		}
		if r.delay > 160*time.Millisecond {
			late++
		}
	}
	if late > 20 { // the machine may have been busy
		t.Errorf("%d of 200 came after more than 160 ms", late)
	}
}

func TestLinkReordersAndDuplicates(t *testing.T) {
	t.Parallel()
	p := newImpaired(t)
	p.link.Down.Set(rtctest.Impairment{Reorder: 0.2, Hold: 20 * time.Millisecond, Duplicate: 0.1})
	got := p.run(t, 500, 100, time.Millisecond, 200*time.Millisecond)
	seen, late, newest := map[uint32]int{}, 0, uint32(0)
	for _, r := range got {
		seen[r.number]++
		if r.number < newest && seen[r.number] == 1 {
			late++
		}
		newest = max(newest, r.number)
	}
	s := p.link.Down.Passed()
	if len(seen) != 500 || len(got) != 500+s.Duplicated || s.Duplicated < 20 || s.Duplicated > 80 {
		t.Errorf("%d datagrams of 500 came, %d in all, counted %+v", len(seen), len(got), s)
	}
	if s.Reordered < 60 || s.Reordered > 140 || late < s.Reordered/2 {
		t.Errorf("%d came late, counted %+v", late, s)
	}
}
