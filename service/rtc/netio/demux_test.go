package netio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClassify(t *testing.T) {
	stun := stunRequest(1)
	altered := func(b []byte, at int, v byte) []byte {
		b = append([]byte(nil), b...)
		b[at] = v
		return b
	}
	hello := dtlsRecord(22, 0, "hello")
	alert := dtlsRecord(21, 0, "\x02\x28")
	for _, c := range []struct {
		name string
		b    []byte
		want kind
	}{
		{"empty", nil, kindOther},
		{"rtp", rtp(1, 100), kindMedia},
		{"rtcp", altered(rtp(1, 100), 1, 200), kindMedia},
		{"last media byte", altered(rtp(1, 100), 0, 191), kindMedia},
		{"short rtp", rtp(1, 100)[:11], kindOther},
		{"turn channel", altered(rtp(1, 100), 0, 0x40), kindOther},
		{"quic", altered(rtp(1, 100), 0, 192), kindOther},
		{"zrtp", altered(rtp(1, 100), 0, 16), kindOther},
		{"stun", stun, kindSTUN},
		{"stun response", altered(stun, 0, 1), kindSTUN},
		{"stun without cookie", altered(stun, 4, 0), kindOther},
		{"stun too short for its length", altered(stun, 3, 4), kindOther},
		{"stun too long for its length", append(stunRequest(1), 0, 0, 0, 0), kindOther},
		{"stun not in words", append(altered(stun, 3, 2), 0, 0), kindOther},
		{"stun cut", stun[:19], kindOther},
		{"dtls", hello, kindDTLS},
		{"dtls 1.0 version, as in a first hello", altered(hello, 2, 0xff), kindDTLS},
		{"dtls of two records", append(append([]byte(nil), hello...), hello...), kindDTLS},
		{"dtls cut", hello[:len(hello)-1], kindOther},
		{"dtls with rubbish behind", append(append([]byte(nil), hello...), 1), kindOther},
		{"dtls empty record", dtlsRecord(22, 0, ""), kindOther},
		{"tls over udp", altered(hello, 1, 3), kindOther},
		{"dtls 1.3 short header", altered(hello, 0, 0x2f), kindOther},
		{"plaintext alert", alert, kindAlert},
		{"plaintext alert behind another", append(append([]byte(nil), hello...), alert...), kindAlert},
		{"encrypted alert", dtlsRecord(21, 1, strings.Repeat("x", 26)), kindDTLS},
		{"change cipher spec", dtlsRecord(20, 0, "\x01"), kindDTLS},
	} {
		if got := classify(c.b); got != c.want {
			t.Errorf("%s: kind %d, want %d", c.name, got, c.want)
		}
	}
}

// newReceiver returns the receiving half of a mux that reads nothing itself.
func newReceiver(t testing.TB, cfg Config, media *fakeMedia) *receiver {
	t.Helper()
	m := listen(t, cfg)
	out := m.newBatch(batchSlots, 0)
	return &receiver{mux: m, queue: newControlQueue(m.cfg.ControlQueue), local: 1, reader: media.NewReader(out), out: out}
}

func remote(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
}

func TestUnknownPathsReachICEAlone(t *testing.T) {
	media := newFakeMedia()
	known, unknown := NewPath(0, remote(1), false), NewPath(0, remote(2), false)
	media.knowOnly(known)
	r := newReceiver(t, Config{}, media)
	alert := dtlsRecord(21, 0, "\x02\x28")
	for _, from := range []Path{known, unknown} {
		for _, b := range [][]byte{rtp(1, 100), stunRequest(1), alert, dtlsRecord(20, 0, "\x01"), {1, 2, 3}} {
			r.datagram(b, from)
		}
	}
	r.flush()
	want := Drops{DropUnknownMedia: 1, DropAlert: 2, DropMalformed: 2}
	s := r.mux.Stats()
	if s.Drops != want || s.RxMedia != 1 || s.RxControl != 4 || s.RxPackets != 10 {
		t.Errorf("stats %+v", s)
	}
	if got := receive(t, media.got); got.from != known {
		t.Errorf("media from %v", got.from)
	}
	for buf := make([]byte, maxDatagram); ; {
		n, from, ok := r.queue.pop(buf)
		if !ok {
			break
		}
		if n == len(alert) && buf[0] == recordAlert {
			t.Errorf("plaintext alert of %v passed", from)
		}
	}
}

func TestControlQueueOverflow(t *testing.T) {
	const size = 1024
	media := newFakeMedia()
	r := newReceiver(t, Config{ControlQueue: size}, media)
	for i := range size + 10 {
		r.datagram(stunRequest(byte(i)), NewPath(0, remote(i), false))
	}
	r.flush()
	if s := r.mux.Stats(); s.RxControl != size || s.Drops[DropControlQueue] != 10 {
		t.Errorf("control %d, drops %v", s.RxControl, s.Drops)
	}
	buf := make([]byte, maxDatagram)
	for i := range size {
		if n, from, ok := r.queue.pop(buf); !ok || n != stunHeader || buf[8] != byte(i) || from != remote(i) {
			t.Fatalf("datagram %d: %d bytes from %v", i, n, from)
		}
	}
	if _, _, ok := r.queue.pop(buf); ok {
		t.Error("one too many")
	}
}

func TestControlReadDeadline(t *testing.T) {
	m, addr := listenUDP(t, Config{})
	conn := m.UDPConns()[0]
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.ReadFrom(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) || !os.IsTimeout(err) {
		t.Errorf("ReadFrom: %v", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	sendTo(t, peer(t), stunRequest(1), addr)
	if n, _, err := conn.ReadFrom(make([]byte, 100)); n != stunHeader || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if n, err := conn.WriteTo([]byte("x"), &os6{}); n != 0 || err == nil {
		t.Error("wrote to an address that is not of UDP")
	}
	if n, err := conn.(*packetConn).WriteToAddrPort([]byte("x"), netip.MustParseAddrPort("[::1]:9")); n != 0 || err == nil {
		t.Error("wrote to an address of the wrong family")
	}
}

// os6 is a net.Addr of no network.
type os6 struct{}

func (*os6) Network() string { return "none" }
func (*os6) String() string  { return "none" }

func TestBudget(t *testing.T) {
	addr := func(i int) shareKey { return sourceShare(NewPath(0, remote(i), false)) }
	count := func(b *budget, n int, source func(i int) shareKey, now time.Duration) (allowed int, drops Drops) {
		for i := range n {
			if why, ok := b.allow(source(i), now); ok {
				allowed++
			} else {
				drops[why]++
			}
		}
		return allowed, drops
	}
	one := func(int) shareKey { return addr(1) }

	b := newBudget(200, 20_000)
	if n, drops := count(b, 300, one, 1); n != 200 || drops[DropSourceBudget] != 100 {
		t.Errorf("at the start %d, %v", n, drops)
	}
	if n, _ := count(b, 300, one, 1+time.Second/2); n != 100 {
		t.Errorf("after half a second %d", n)
	}
	if n, _ := count(b, 300, one, time.Hour); n != 200 {
		t.Errorf("after an hour %d", n)
	}
	if n, _ := count(b, 300, one, time.Minute); n != 0 {
		t.Errorf("at a time gone by %d", n)
	}
	if n, _ := count(b, 10, func(int) shareKey { return addr(2) }, time.Hour); n != 10 {
		t.Errorf("another source %d", n)
	}

	b = newBudget(200, 20_000)
	n, drops := count(b, 100_000, addr, 1)
	if n != 20_000 || drops[DropGlobalBudget] != 80_000 {
		t.Errorf("of all sources %d, %v", n, drops)
	}
	v6 := func(i int) shareKey {
		from := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), 4000)
		return sourceShare(NewPath(0, from, false))
	}
	if n, _ := count(newBudget(200, 20_000), 300, v6, 1); n != 200 {
		t.Errorf("of one /64 %d", n)
	}
}

func TestBudgetIsForUnknownPaths(t *testing.T) {
	media := newFakeMedia()
	known, unknown := NewPath(0, remote(1), false), NewPath(0, remote(2), false)
	media.knowOnly(known)
	r := newReceiver(t, Config{SourceRate: 5}, media)
	for range 20 {
		r.datagram(stunRequest(1), known)
		r.datagram(stunRequest(1), unknown)
	}
	r.flush()
	if s := r.mux.Stats(); s.RxControl != 25 || s.Drops[DropSourceBudget] != 15 {
		t.Errorf("control %d, drops %v", s.RxControl, s.Drops)
	}
}

// near returns paths from one address.
func near(port int) Path {
	return NewPath(0, netip.AddrPortFrom(remote(1).Addr(), uint16(port)), false)
}

func allowed(b *budgets, n int, from func(i int) Path, name []byte, now time.Duration) (out int) {
	for i := range n {
		if _, ok := b.allow(from(i), name, now); ok {
			out++
		}
	}
	return out
}

// Those behind one address each have their own once ICE has answered them, and a flood from that
// address, even by one who knows a name, takes nothing from them.
func TestBudgetOfProvenPaths(t *testing.T) {
	b := newBudgets(200, 20_000)
	now := time.Second
	junk := func(i int) Path { return near(1024 + i) }
	if n := allowed(&b, 201, junk, nil, now); n != 200 {
		t.Errorf("junk %d", n)
	}
	mine := func(int) Path { return near(9) }
	if n := allowed(&b, 1, mine, nil, now); n != 0 {
		t.Error("a path that has proven nothing is junk")
	}
	if n := allowed(&b, checkRate+1, mine, []byte("me"), now); n != checkRate {
		t.Errorf("%d checks of an agent", n)
	}
	if n := allowed(&b, 1, mine, []byte("other"), now); n != 1 {
		t.Error("checks of one agent take from another's")
	}
	if n := allowed(&b, 1, func(int) Path { return NewPath(0, remote(2), false) }, []byte("me"), now); n != 1 {
		t.Error("checks from one source take from another's")
	}
	for i := range 100 {
		b.prove(near(10+i), now)
	}
	for i := range 100 {
		if n := allowed(&b, 100, func(int) Path { return near(10 + i) }, nil, now); n != 100 {
			t.Fatalf("proven path %d: %d of 100", i, n)
		}
	}
	if n := allowed(&b, 1, mine, nil, now); n != 0 {
		t.Error("what others have proven counts for a path")
	}
	if n := allowed(&b, 101, func(int) Path { return near(10) }, []byte("me"), now); n != 100 {
		t.Errorf("proven path above its rate: %d more, want 100", n)
	}
}

func TestProvenPathsAreBounded(t *testing.T) {
	b := newBudgets(200, 20_000)
	path := func(i int) Path { return NewPath(0, remote(i), false) }
	for i := range 120 {
		b.prove(path(i), 1)
	}
	if n := allowed(&b, 24_000, func(i int) Path { return path(i % 120) }, nil, 1); n != 20_000 {
		t.Errorf("all proven paths %d", n)
	}
	if n := allowed(&b, 201, func(int) Path { return path(1000) }, nil, 1); n != 200 {
		t.Errorf("they leave %d to others", n)
	}

	b = newBudgets(5, 20_000)
	b.prove(path(1), 1)
	if n := allowed(&b, 6, func(int) Path { return path(1) }, nil, provenTime); n != 5 {
		t.Errorf("%d packets", n)
	}
	if n := allowed(&b, 6, func(int) Path { return path(1) }, nil, 1+provenTime); n != 5 {
		t.Errorf("later, as an unknown source, %d", n)
	}

	b = newBudgets(200, 1<<20)
	for i := range 100_000 {
		b.prove(path(i), time.Duration(1+i))
	}
	known := 0
	for i := range 100_000 {
		if _, _, ok := b.proven.allowKnown(pathShare(path(i)), 100_000); ok {
			known++
		}
	}
	if most := budgetSets * budgetWays; known == 0 || known > most {
		t.Errorf("%d paths are known, at most %d are to be", known, most)
	}
}

// What ICE writes to proves a path, unless its endpoint is attached: that one has no budget.
func TestWritingProvesPath(t *testing.T) {
	media := newFakeMedia()
	attached := NewPath(0, netip.MustParseAddrPort("127.0.0.1:9"), false)
	media.knowOnly(attached)
	m, _ := listenUDP(t, Config{Media: media})
	conn := m.UDPConns()[0].(*packetConn)
	plain := NewPath(0, netip.MustParseAddrPort("127.0.0.1:10"), false)
	for _, p := range []Path{attached, plain} {
		if _, err := conn.WriteToAddrPort([]byte("x"), p.Remote()); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := m.budgets.proven.allowKnown(pathShare(p), m.now()); ok != (p == plain) {
			t.Errorf("%v proven: %v", p, ok)
		}
	}
}

// A flood from an address does not keep the checks for an agent of ours from ICE.
func TestChecksAreNotJunk(t *testing.T) {
	media := newFakeMedia()
	media.knowOnly()
	r := newReceiver(t, Config{SourceRate: 5}, media)
	r.conn = new(packetConn)
	r.conn.NameAgents(func(stun []byte) []byte {
		if stun[len(stun)-1] == 1 { // of the transaction
			return []byte("agent")
		}
		return nil
	})
	for i := range 20 {
		r.datagram(stunRequest(2), near(100+i))
		r.datagram(dtlsRecord(22, 0, "hello"), near(100+i))
	}
	for i := range 6 {
		check := stunRequest(2)
		check[len(check)-1] = 1
		r.datagram(check, near(200+i))
	}
	r.flush()
	if s := r.mux.Stats(); s.RxControl != 5+5 || s.Drops[DropSourceBudget] != 35+1 {
		t.Errorf("control %d, drops %v", s.RxControl, s.Drops)
	}
}

// quietMedia is a data plane that allocates nothing.
type quietMedia struct{ path Path }

func (q quietMedia) NewReader(*Batch) Reader { return q }
func (q quietMedia) Known(from Path) bool    { return from == q.path }
func (q quietMedia) Receive([]byte, Path)    {}
func (q quietMedia) Flush()                  {}

func TestReceivingDoesNotAllocate(t *testing.T) {
	r := newReceiver(t, Config{SourceRate: 1 << 20, GlobalRate: 1 << 20}, newFakeMedia())
	known, unknown := NewPath(0, remote(1), false), NewPath(0, remote(2), false)
	proven := NewPath(0, remote(3), false)
	r.conn = new(packetConn)
	r.conn.NameAgents(func(stun []byte) []byte { return stun[:4] })
	r.reader = quietMedia{known}
	media, stun, dtls, buf := rtp(1, 1000), stunRequest(1), dtlsRecord(22, 0, "x"), make([]byte, maxDatagram)
	if n := testing.AllocsPerRun(100, func() {
		for range 20 {
			r.mux.proven(proven)
			for _, from := range []Path{known, unknown, proven} {
				r.datagram(media, from)
				r.datagram(stun, from)
				r.datagram(dtls, from)
			}
		}
		r.flush()
		for ok := true; ok; {
			_, _, ok = r.queue.pop(buf)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDropsAreLoggedOncePerReason(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	now := Drops{DropAlert: 5, DropMalformed: 1_000_000, DropIdle: 0}
	drops := dropLog{logged: Drops{DropAlert: 3}}
	drops.tick(t.Context(), log, &now)
	drops.tick(t.Context(), log, &now)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "reason=malformed count=1000000 total=1000000") ||
		!strings.Contains(lines[1], `reason="plaintext alert" count=2 total=5`) {
		t.Errorf("log: %s", out.String())
	}
	for i := range numDrops {
		if Drop(i).String() == "" || Drop(i).String() == "unknown" {
			t.Errorf("reason %d has no name", i)
		}
	}
}

// P9: a flood that goes on is told of less and less often, but all of it, and at once what is much more.
func TestFloodDoesNotFillTheLog(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	var drops dropLog
	var now Drops
	tick := func(n uint64) string {
		out.Reset()
		now[DropMalformed] += n
		drops.tick(t.Context(), log, &now)
		_, count, _ := strings.Cut(strings.TrimSpace(out.String()), "count=")
		count, _, _ = strings.Cut(count, " ")
		return count
	}
	var lines []string
	for i := range 100 {
		if count := tick(10); count != "" {
			lines = append(lines, fmt.Sprintf("%d:%s", i+1, count))
		}
	}
	if got, want := strings.Join(lines, " "), "1:10 2:10 4:20 8:40 16:80 32:160 62:300 92:300"; got != want {
		t.Errorf("lines in intervals, and what they tell: %s, want %s", got, want)
	}
	var rest string
	for range maxReportPause {
		rest += tick(0)
	}
	if rest != "80" {
		t.Errorf("of what came last %q was told, want 80", rest)
	}
	for range maxReportPause {
		if count := tick(0); count != "" {
			t.Errorf("nothing was told of as %s", count)
		}
	}
	if count := tick(7); count != "7" {
		t.Errorf("the next flood was told of as %q at first, want 7", count)
	}
	if tick(7); tick(70) != "" {
		t.Error("a little more ended a pause")
	}
	if count := tick(701); count != "771" {
		t.Errorf("a flood amid a pause was told of as %q, want 771", count)
	}
	tick(1)
	tick(1)
	out.Reset()
	drops.end(t.Context(), log, &now)
	if !strings.Contains(out.String(), "count=1 total=") {
		t.Errorf("at the end: %s", out.String())
	}
}

func TestReportOncePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		m := &Mux{started: time.Now()}
		m.cfg.Log = slog.New(slog.NewTextHandler(&out, nil))
		c := &m.counters
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.report(ctx)
		}()
		for range 25 * 100 { // 25 s of 100 malformed packets per second
			c.drop(DropMalformed)
			time.Sleep(10 * time.Millisecond)
		}
		c.fallbacks.Add(2)
		time.Sleep(16 * time.Second)
		cancel()
		<-done
		if n := strings.Count(out.String(), "reason=malformed"); n != 3 {
			t.Errorf("%d lines in 41 s:\n%s", n, out.String())
		}
		if n := strings.Count(out.String(), "segmented"); n != 1 {
			t.Errorf("%d lines about segments:\n%s", n, out.String())
		}
	})
}

func FuzzUDPDatagram(f *testing.F) {
	f.Add(rtp(1, 100))
	f.Add(stunRequest(1))
	f.Add(dtlsRecord(22, 0, "hello"))
	f.Add(append(dtlsRecord(20, 0, "\x01"), dtlsRecord(21, 0, "\x01\x00")...))
	f.Add([]byte{0x17, 0xfe, 0xfd})
	known, unknown := NewPath(0, remote(1), false), NewPath(0, remote(2), false)
	m := listen(f, Config{SourceRate: 1 << 30, GlobalRate: 1 << 30})
	buf := make([]byte, 2*maxDatagram)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxDatagram {
			b = b[:maxDatagram]
		}
		r := &receiver{mux: m, queue: newControlQueue(4), local: 1, out: m.newBatch(slotsPerChunk, 0)}
		media := &countingMedia{path: known}
		r.reader = media
		r.datagram(b, unknown)
		if media.n != 0 {
			t.Fatal("media of an unknown path")
		}
		r.datagram(b, known)
		counts := r.counts
		r.flush()
		var dropped uint64
		for _, n := range counts.drops {
			dropped += n
		}
		if counts.media+counts.control+dropped != 2 || int(counts.media) != media.n {
			t.Fatalf("counts %+v", counts)
		}
		for range counts.control {
			n, _, ok := r.queue.pop(buf)
			if !ok || string(buf[:n]) != string(b) {
				t.Fatal("ICE gets something else")
			}
			if n < recordHeader || buf[0] > 63 {
				t.Fatalf("ICE gets %x", buf[:n])
			}
		}
		if _, _, ok := r.queue.pop(buf); ok {
			t.Fatal("ICE gets too much")
		}
	})
}

type countingMedia struct {
	path Path
	n    int
}

func (c *countingMedia) Known(from Path) bool { return from == c.path }
func (c *countingMedia) Receive([]byte, Path) { c.n++ }
func (c *countingMedia) Flush()               {}
