package netio

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/transport/v4/stdnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

// received is one packet as the data plane got it.
type received struct {
	reader int
	from   Path
	body   string
}

// fakeMedia is a data plane that records, and echoes if told to.
type fakeMedia struct {
	got     chan received
	echo    bool
	mu      sync.Mutex
	known   map[Path]bool // nil: all
	readers int
}

func newFakeMedia() *fakeMedia { return &fakeMedia{got: make(chan received, 4096)} }

func (f *fakeMedia) NewReader(out *Batch) Reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers++
	return &fakeReader{media: f, out: out, number: f.readers}
}

func (f *fakeMedia) knowOnly(paths ...Path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = make(map[Path]bool)
	for _, p := range paths {
		f.known[p] = true
	}
}

func (f *fakeMedia) Known(from Path) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known == nil || f.known[from]
}

type fakeReader struct {
	media   *fakeMedia
	out     *Batch
	number  int
	pending []received
	bodies  [][]byte
}

func (r *fakeReader) Known(from Path) bool {
	return r.media.Known(from)
}

func (r *fakeReader) Receive(b []byte, from Path) {
	r.pending = append(r.pending, received{reader: r.number, from: from})
	r.bodies = append(r.bodies, b) // valid until Flush
}

func (r *fakeReader) Flush() {
	for i, p := range r.pending {
		p.body = string(r.bodies[i])
		if r.media.echo {
			r.out.Commit(copy(r.out.Slot()[:slotSize], r.bodies[i]), p.from)
		}
		r.media.got <- p
	}
	r.pending, r.bodies = r.pending[:0], r.bodies[:0]
}

// backends are the two implementations; tests of common behaviour run on each.
var backends = []string{"kernel", "portable"}

func eachBackend(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			if name == "portable" {
				cfg.Net = newStdNet(t)
			}
			f(t, cfg)
		})
	}
}

func newStdNet(t testing.TB) *stdnet.Net {
	t.Helper()
	n, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func listen(t testing.TB, cfg Config) *Mux {
	t.Helper()
	m, err := Listen(cfg)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return m
}

func listenUDP(t testing.TB, cfg Config) (*Mux, netip.AddrPort) {
	t.Helper()
	cfg.UDPAddrs = []netip.AddrPort{loopback}
	m := listen(t, cfg)
	return m, m.groups[0].addr
}

// peer is a plain socket on the other side.
func peer(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	return canonical(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

func sendTo(t testing.TB, c *net.UDPConn, b []byte, to netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

func readPacket(t testing.TB, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 65536)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return string(buf[:n]), canonical(from)
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// eventually polls for a state that makes no event.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func mustPath(t testing.TB, m *Mux, remote netip.AddrPort) Path {
	t.Helper()
	p, err := m.Path(m.groups[0].addr, remote, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func commit(b *Batch, body string, to Path) {
	b.Commit(copy(b.Slot()[:slotSize], body), to)
}

// rtp returns a media packet with a number, of a size of 20 bytes or more.
func rtp(number, size int) []byte {
	b := make([]byte, size)
	b[0] = 0x80
	copy(b[12:], fmt.Sprintf("%08d", number))
	return b
}

// stunRequest returns a binding request without attributes.
func stunRequest(id byte) []byte {
	return []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, id, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
}

// dtlsRecord returns one record of DTLS 1.2.
func dtlsRecord(contentType byte, epoch uint16, payload string) []byte {
	b := []byte{contentType, 0xfe, 0xfd, byte(epoch >> 8), byte(epoch), 0, 0, 0, 0, 0, 1,
		byte(len(payload) >> 8), byte(len(payload))}
	return append(b, payload...)
}

func TestMediaGoesToTheReaderAndComesBack(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		media := newFakeMedia()
		media.echo = true
		cfg.Media = media
		m, addr := listenUDP(t, cfg)
		c := peer(t)
		want := string(rtp(1, 200))
		sendTo(t, c, []byte(want), addr)
		got := receive(t, media.got)
		if got.body != want || got.from != mustPath(t, m, addrOf(c)) {
			t.Errorf("got %d bytes from %v", len(got.body), got.from)
		}
		if body, from := readPacket(t, c); body != want || from != addr {
			t.Errorf("echo: %d bytes from %v", len(body), from)
		}
		eventually(t, "counters", func() bool { return m.Stats().RxMedia == 1 }) // they follow the packets
		if s := m.Stats(); s.TxPackets != 1 || s.RxPackets != 1 || s.Drops != (Drops{}) {
			t.Errorf("stats %+v", s)
		}
	})
}

// Each packet is sent while the reader is busy with the one before, and about to wait.
func TestReaderWaitsForNothingThatIsThere(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		media := newFakeMedia()
		media.got = make(chan received)
		cfg.Media = media
		_, addr := listenUDP(t, cfg)
		p := peer(t)
		for i := range 2000 {
			sendTo(t, p, rtp(i, 100), addr)
			if got := receive(t, media.got); got.body != string(rtp(i, 100)) {
				t.Fatalf("got another packet than number %d", i)
			}
		}
		for _, burst := range []int{63, 64, 65, 128} { // about the size of a batch
			for i := range burst {
				sendTo(t, p, rtp(i, 100), addr)
			}
			for i := range burst {
				if got := receive(t, media.got); got.body != string(rtp(i, 100)) {
					t.Fatalf("got another packet than number %d of %d", i, burst)
				}
			}
		}
	})
}

func TestControlGoesToICE(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		m, addr := listenUDP(t, cfg)
		conn := m.UDPConns()[0]
		c := peer(t)
		for _, b := range [][]byte{stunRequest(1), dtlsRecord(22, 0, "hello")} {
			sendTo(t, c, b, addr)
			buf := make([]byte, 8192)
			n, from, err := conn.ReadFrom(buf)
			if err != nil || string(buf[:n]) != string(b) || from.String() != c.LocalAddr().String() {
				t.Fatalf("got %x from %v, %v", buf[:n], from, err)
			}
			if n, err := conn.WriteTo(b, from); n != len(b) || err != nil {
				t.Fatalf("WriteTo: %d, %v", n, err)
			}
			if body, from := readPacket(t, c); body != string(b) || from != addr {
				t.Errorf("answer %x from %v", body, from)
			}
		}
	})
}
