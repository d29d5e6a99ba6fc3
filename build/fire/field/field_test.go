//go:build linux

package field

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

func newField(t *testing.T, hosts ...string) *Field {
	t.Helper()
	f, err := New(hosts...)
	if errors.Is(err, ErrSkip) {
		t.Skip("SKIPPED, NOTHING SHOWN: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// TestImpairments sends datagrams between two hosts and looks at what becomes of them.
func TestImpairments(t *testing.T) {
	f := newField(t, "a", "b")
	const packets, pause = 600, 2 * time.Millisecond
	impairer, err := f.Impair("a", From, 1)
	if err != nil {
		t.Fatal(err)
	}
	to, err := f.Host("b").ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := f.Host("a").ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	dst := to.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()

	send := func() (got, out, twice int, least time.Duration) {
		sent := make([]atomic.Pointer[time.Time], packets)
		go func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for n := range packets {
				now := time.Now()
				sent[n].Store(&now)
				_, _ = from.WriteToUDPAddrPort([]byte{byte(n >> 8), byte(n)}, dst)
				<-tick.C
			}
			_, _ = from.WriteToUDPAddrPort([]byte{255, 255}, dst)
		}()
		seen, last := make(map[int]bool), -1
		least = time.Hour
		b := make([]byte, 10)
		for {
			_ = to.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			if _, _, err := to.ReadFromUDPAddrPort(b); err != nil {
				return len(seen), out, twice, least
			}
			n := int(b[0])<<8 | int(b[1])
			if n >= packets {
				continue
			}
			if seen[n] {
				twice++
				continue
			}
			seen[n] = true
			least = min(least, time.Since(*sent[n].Load()))
			if n < last {
				out++
			}
			last = n
		}
	}
	if got, out, twice, _ := send(); got != packets || out != 0 || twice != 0 {
		t.Errorf("without impairment: %d of %d, %d out of order, %d twice", got, packets, out, twice)
	}
	impairer.Set(Impairment{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.2, Duplicate: 0.1})
	got, out, twice, least := send()
	lost := packets - got
	_, dropped := impairer.Totals()
	if math.Abs(float64(lost)/packets-0.2) > 0.08 || out == 0 || twice == 0 || least < 40*time.Millisecond {
		t.Errorf("impaired: %d of %d lost, %d out of order, %d twice, least delay %v", lost, packets, out, twice, least)
	}
	if dropped < lost || dropped > lost+1 { // the last datagram is not counted
		t.Errorf("%d are said to be dropped, %d were lost", dropped, lost)
	}
	if err := impairer.Err(); err != nil {
		t.Error(err)
	}
}

// TestLinks cuts, translates and bounds links.
func TestLinks(t *testing.T) {
	f := newField(t, "a", "b")
	to, err := f.Host("b").ListenUDP(5000)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := f.Host("a").ListenUDP(6000)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	arrives := func() (netip.AddrPort, bool) {
		t.Helper()
		if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(f.Host("b").Addr, 5000)); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, src, err := to.ReadFromUDPAddrPort(make([]byte, 10))
		return src, err == nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if src, ok := arrives(); !ok || src != netip.AddrPortFrom(f.Host("a").Addr, 6000) {
		t.Errorf("came from %v, %t", src, ok)
	}
	must(f.Cut("a", From))
	if _, ok := arrives(); ok {
		t.Error("a cut link carries")
	}
	must(f.Mend("a", From))
	must(f.Translate("a", "b", 1, 40000))
	if src, ok := arrives(); !ok || src.Addr() != netip.MustParseAddr("10.78.0.1") || src.Port() < 40000 {
		t.Errorf("translated: came from %v, %t", src, ok)
	}
	must(f.Translate("a", "b", 2, 50000))
	if src, ok := arrives(); !ok || src.Addr() != netip.MustParseAddr("10.78.0.2") || src.Port() < 50000 {
		t.Errorf("translated again: came from %v, %t", src, ok)
	}
	must(f.Rate("b", 1_000_000, 10_000))
	must(f.Unrate("b"))
}

// TestDisks fills a disk and takes the power from another.
func TestDisks(t *testing.T) {
	f := newField(t)
	small, err := f.Tmpfs("small", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(small+"/x", make([]byte, 2<<20), 0o600); err == nil {
		t.Error("2 MiB fit on a disk of 1 MiB")
	}
	dir, image, err := f.Ext4("disk", 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	synced, err := os.Create(dir + "/synced")
	if err != nil {
		t.Fatal(err)
	}
	defer synced.Close()
	if err := synced.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/unsynced", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.LosePower(image, f.Dir+"/copy"); err != nil {
		t.Fatal(err)
	}
	after, err := f.Loop("after", f.Dir+"/copy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(after + "/synced"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(after + "/unsynced"); err == nil {
		t.Error("what was not synced survived")
	}
	group, err := f.Group()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(group.Memory(64<<20), group.CPU(30), group.CPU(0)); err != nil {
		t.Error(err)
	}
}
