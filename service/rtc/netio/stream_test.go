package netio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func listenTCP(t testing.TB, cfg Config) (*Mux, netip.AddrPort) {
	t.Helper()
	cfg.TCPAddrs = []netip.AddrPort{loopback}
	m := listen(t, cfg)
	return m, canonical(m.TCPListener().Addr().(*net.TCPAddr).AddrPort())
}

func dial(t testing.TB, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
}

func write(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// accept takes the connection ICE would get.
func accept(t testing.TB, m *Mux) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	c := make(chan result, 1)
	go func() {
		conn, err := m.TCPListener().Accept()
		c <- result{conn, err}
	}()
	r := receive(t, c)
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	return r.conn
}

// connect dials, sends the first frame and returns both ends and the path.
func connect(t testing.TB, m *Mux, to netip.AddrPort) (*net.TCPConn, net.Conn, Path) {
	t.Helper()
	c := dial(t, to)
	write(t, c, frame(stunRequest(1)))
	conn := accept(t, m)
	if got := readFrame(t, conn); got != string(stunRequest(1)) {
		t.Fatalf("first frame %x", got)
	}
	path, err := m.Path(to, canonical(c.LocalAddr().(*net.TCPAddr).AddrPort()), true)
	if err != nil {
		t.Fatal(err)
	}
	return c, conn, path
}

func readFrame(t testing.TB, r io.Reader) string {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	return string(body)
}

// expectClosed waits until the peer's connection has ended.
func expectClosed(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("connection still open")
	}
}

func TestStreamCarriesControlAndMedia(t *testing.T) {
	media := newFakeMedia()
	media.echo = true
	m, addr := listenTCP(t, Config{Media: media})
	c, conn, path := connect(t, m, addr)
	if !path.TCP() || path.Remote().String() != c.LocalAddr().String() {
		t.Errorf("path %v", path)
	}
	// Media is read by whoever reads control, so there is control behind it.
	var in []byte
	for i := range 5 {
		in = append(in, frame(rtp(i, 100))...)
	}
	in = append(in, frame(dtlsRecord(22, 0, "hello"))...)
	write(t, c, in)
	if got := readFrame(t, conn); got != string(dtlsRecord(22, 0, "hello")) {
		t.Errorf("control frame %x", got)
	}
	for i := range 5 {
		if got := receive(t, media.got); got.body != string(rtp(i, 100)) || got.from != path {
			t.Errorf("media %d: %d bytes from %v", i, len(got.body), got.from)
		}
		if got := readFrame(t, c); got != string(rtp(i, 100)) {
			t.Errorf("echo %d: %x", i, got)
		}
	}
	out := frame(stunRequest(9))
	if n, err := conn.Write(out); n != len(out) || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if got := readFrame(t, c); got != string(stunRequest(9)) {
		t.Errorf("control to the peer %x", got)
	}
	for _, bad := range [][]byte{nil, {0}, {0, 0}, frame(make([]byte, 10))[:5], append(frame([]byte("x")), 1)} {
		if n, err := conn.Write(bad); n != 0 || err == nil {
			t.Errorf("Write of %x: %d, %v", bad, n, err)
		}
	}
	// The end, seen from both sides and by those who still hold the path.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 2)); !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v", err)
	}
	_ = conn.Close()
	if n, err := conn.Write(out); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %d, %v", n, err)
	}
	if _, err := conn.Read(make([]byte, 2)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	b := m.NewBatch()
	commit(b, "late", path)
	b.Flush()
	if s := m.Stats(); s.Drops[DropNoPath] != 2 || s.TxPackets != 5 || s.TCPConns != 0 || s.TCPAccepted != 1 {
		t.Errorf("stats %+v", s)
	}
	if _, err := m.Path(addr, path.Remote(), true); !errors.Is(err, ErrNoConn) {
		t.Errorf("Path: %v", err)
	}
}

// scripted is a connection whose bytes come in the pieces of a reader.
type scripted struct {
	net.Conn
	in io.Reader
}

func (s scripted) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s scripted) SetReadDeadline(time.Time) error  { return nil }
func (s scripted) SetWriteDeadline(time.Time) error { return nil }
func (s scripted) Close() error                     { return nil }
func (s scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// readStream runs the reading side over in and returns the frames of both kinds.
func readStream(t testing.TB, m *Mux, media *fakeMedia, in io.Reader) (control, mediaFrames []string) {
	t.Helper()
	path := NewPath(0, remote(1), true)
	s := newStream(m.tcp, scripted{in: in}, path, 0)
	defer s.end()
	if s.first() {
		for {
			var head [2]byte
			if _, err := io.ReadFull(s, head[:]); err != nil {
				break
			}
			body := make([]byte, binary.BigEndian.Uint16(head[:]))
			if _, err := io.ReadFull(s, body); err != nil {
				break
			}
			control = append(control, string(body))
		}
	}
	for len(media.got) > 0 {
		mediaFrames = append(mediaFrames, (<-media.got).body)
	}
	return control, mediaFrames
}

func TestFramesSplitAtEveryByte(t *testing.T) {
	media := newFakeMedia()
	m := listen(t, Config{Media: media, SourceRate: 1 << 20, GlobalRate: 1 << 20})
	bodies := [][]byte{stunRequest(1), rtp(1, 40), rtp(2, maxFrame), dtlsRecord(22, 0, "x"), rtp(3, 12), stunRequest(2), rtp(4, maxFrame), rtp(5, maxFrame), rtp(6, maxFrame), rtp(7, maxFrame)}
	var in []byte
	var control, frames []string
	for _, b := range bodies {
		in = append(in, frame(b)...)
		if b[0] == 0x80 {
			frames = append(frames, string(b))
		} else {
			control = append(control, string(b))
		}
	}
	check := func(what string, r io.Reader) {
		gotControl, gotMedia := readStream(t, m, media, r)
		if fmt.Sprint(gotControl) != fmt.Sprint(control) || fmt.Sprint(gotMedia) != fmt.Sprint(frames) {
			t.Fatalf("%s: %d control and %d media frames, want %d and %d", what, len(gotControl), len(gotMedia), len(control), len(frames))
		}
	}
	for at := range in {
		check(fmt.Sprint("split at ", at), io.MultiReader(bytes.NewReader(in[:at]), bytes.NewReader(in[at:])))
	}
	check("byte by byte", iotest.OneByteReader(bytes.NewReader(in)))
	check("data with error", iotest.DataErrReader(bytes.NewReader(in)))
}

func TestFirstFrame(t *testing.T) {
	response := stunRequest(1)
	response[0] = 1
	for name, in := range map[string][]byte{
		"tls hello":      []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on, up to whatever length it says"),
		"http":           []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
		"length 65535":   {0xff, 0xff, 0, 1},
		"empty frame":    {0, 0},
		"media":          frame(rtp(1, 100)),
		"dtls":           frame(dtlsRecord(22, 0, "x")),
		"stun response":  frame(response),
		"too large stun": {2, 4, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m, addr := listenTCP(t, Config{})
			c := dial(t, addr)
			write(t, c, in)
			expectClosed(t, c)
			eventually(t, "gone", func() bool { return m.Stats().TCPConns == 0 })
			if s := m.Stats(); s.Drops[DropFirstFrame] != 1 {
				t.Errorf("drops %v", s.Drops)
			}
		})
	}
}

// Who sends nothing, or one byte now and then, has no more time than the limit.
func TestFirstFrameInTime(t *testing.T) {
	const limit = 100 * time.Millisecond
	m, addr := listenTCP(t, Config{StreamFirstFrame: limit})
	start := time.Now() // before their time begins
	silent, slow := dial(t, addr), dial(t, addr)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for _, b := range frame(stunRequest(1)) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(limit / 4) // the slow peer's pace
		}
	})
	expectClosed(t, silent)
	expectClosed(t, slow)
	if d := time.Since(start); d < limit || d > 20*limit {
		t.Errorf("closed after %v", d)
	}
	eventually(t, "counted", func() bool { return m.Stats().Drops[DropFirstFrame] == 2 })
}

func TestFrameSize(t *testing.T) {
	for name, head := range map[string][]byte{"empty": {0, 0}, "one too large": {8, 1}} {
		t.Run(name, func(t *testing.T) {
			m, addr := listenTCP(t, Config{})
			c, conn, _ := connect(t, m, addr)
			write(t, c, append(frame(rtp(1, maxFrame)), head...)) // the largest passes
			if _, err := conn.Read(make([]byte, 2)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
			expectClosed(t, c)
			if s := m.Stats(); s.Drops[DropFrameSize] != 1 || s.Drops[DropUnknownMedia] != 1 || s.TCPConns != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// expectRefused dials and waits until the connection is refused for a reason not met before.
func expectRefused(t testing.TB, m *Mux, to netip.AddrPort, why Drop) {
	t.Helper()
	c, err := net.DialTimeout("tcp", to.String(), patience)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
		expectClosed(t, c)
		_ = c.Close()
	}
	eventually(t, why.String(), func() bool { return m.Stats().Drops[why] == 1 })
}

func TestStreamLimits(t *testing.T) {
	m, addr := listenTCP(t, Config{StreamConnsSource: 3})
	var open []*net.TCPConn
	for range 3 {
		c, _, _ := connect(t, m, addr)
		open = append(open, c)
	}
	expectRefused(t, m, addr, DropConnSource)
	if s := m.Stats(); s.TCPConns != 3 || s.TCPAccepted != 3 || s.Drops[DropConnSource] != 1 {
		t.Errorf("stats %+v", s)
	}
	for _, c := range open {
		_ = c.Close() // seen by nobody: the reader is ICE's
	}
	m.tcp.mu.RLock()
	var any *stream
	for _, s := range m.tcp.conns {
		any = s
	}
	m.tcp.mu.RUnlock()
	_ = any.Close()
	connect(t, m, addr)

	m, addr = listenTCP(t, Config{StreamConns: 1})
	_, conn, _ := connect(t, m, addr)
	expectRefused(t, m, addr, DropConnLimit)
	if s := m.Stats(); s.TCPConns != 1 || s.Drops[DropConnLimit] != 1 {
		t.Errorf("stats %+v", s)
	}
	_ = conn.Close()
	connect(t, m, addr)
}

func TestStreamIdle(t *testing.T) {
	m, addr := listenTCP(t, Config{StreamIdle: 50 * time.Millisecond})
	c, conn, _ := connect(t, m, addr)
	expectClosed(t, c)
	if _, err := conn.Read(make([]byte, 2)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if s := m.Stats(); s.Drops[DropIdle] != 1 || s.TCPConns != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A peer that takes nothing loses packets, whole ones, and holds up neither the sender nor others;
// control still fits when media does not. In the end it is closed.
func TestSlowStream(t *testing.T) {
	const limit = 64 << 10
	m, addr := listenTCP(t, Config{StreamQueue: limit})
	slow, conn, slowPath := connect(t, m, addr)
	fast, _, fastPath := connect(t, m, addr)
	b := m.NewBatch()
	body := string(rtp(1, 1200))
	sent := 0
	for ; m.Stats().Drops[DropStreamQueue] < 100; sent++ {
		commit(b, body, slowPath)
		commit(b, body, fastPath)
		b.Flush()
		if got := readFrame(t, fast); got != body {
			t.Fatal("the fast peer got something else")
		}
		if sent == 1<<16 {
			t.Fatal("no packet was dropped")
		}
	}
	if n, err := conn.Write(frame(stunRequest(2))); n != 22 || err != nil {
		t.Errorf("control: %d, %v", n, err)
	}
	if s := m.Stats(); s.Drops[DropStreamQueue] != 100 {
		t.Errorf("control was dropped: %v", s.Drops)
	}
	queued := sent - 100
	for range queued {
		if got := readFrame(t, slow); got != body {
			t.Fatal("the slow peer got something else")
		}
	}
	if got := readFrame(t, slow); got != string(stunRequest(2)) {
		t.Errorf("control frame %x", got)
	}
}

func TestStalledStreamIsClosed(t *testing.T) {
	m, addr := listenTCP(t, Config{StreamIdle: 100 * time.Millisecond})
	_, conn, path := connect(t, m, addr)
	b := m.NewBatch()
	eventually(t, "closed", func() bool {
		for range 200 {
			commit(b, string(rtp(1, 1400)), path)
		}
		b.Flush()
		return m.Stats().TCPConns == 0
	})
	if s := m.Stats(); s.Drops[DropStalled]+s.Drops[DropIdle] != 1 {
		t.Errorf("drops %v", s.Drops)
	}
	if _, err := conn.Read(make([]byte, 2)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

func TestStreamSendingDoesNotAllocate(t *testing.T) {
	m, addr := listenTCP(t, Config{})
	c, _, path := connect(t, m, addr)
	b := m.NewBatch()
	packet := rtp(1, 1000)
	buf := make([]byte, 20*1002)
	if n := testing.AllocsPerRun(50, func() {
		for range 20 {
			b.Commit(copy(b.Slot()[:slotSize], packet), path)
		}
		b.Flush()
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Error(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestListenerClose(t *testing.T) {
	m, addr := listenTCP(t, Config{})
	waiting := dial(t, addr)
	write(t, waiting, frame(stunRequest(1)))
	eventually(t, "admitted", func() bool { return m.Stats().TCPConns == 1 })
	l := m.TCPListener()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	expectClosed(t, waiting)
	if _, err := net.Dial("tcp", addr.String()); err == nil {
		t.Error("still listening")
	}
}

func TestStreamAddresses(t *testing.T) {
	m, addr := listenTCP(t, Config{})
	if _, err := Listen(Config{TCPAddrs: []netip.AddrPort{addr}}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("second instance: %v", err)
	}
	if m.TCPListener().Addr().String() != addr.String() {
		t.Errorf("Addr %v", m.TCPListener().Addr())
	}
	two := listen(t, Config{TCPAddrs: []netip.AddrPort{loopback, netip.MustParseAddrPort("[::1]:0")}})
	if a := two.TCPListener().Addr().(*net.TCPAddr); !a.IP.IsUnspecified() || a.Port == 0 {
		t.Errorf("Addr of two %v", a)
	}
	for i, l := range two.tcp.listeners {
		to := canonical(l.Addr().(*net.TCPAddr).AddrPort())
		c, _, path := connect(t, two, to)
		if int(path.local) != i+1 || path.Remote().String() != c.LocalAddr().String() {
			t.Errorf("path %v of %v", path, c.LocalAddr())
		}
	}
	if l := listen(t, Config{}).TCPListener(); l != nil {
		t.Errorf("a listener on nothing: %v", l)
	}
}

func FuzzTCPFrame(f *testing.F) {
	f.Add(append(frame(stunRequest(1)), frame(rtp(1, 30))...), byte(7))
	f.Add(append(frame(stunRequest(1)), frame(dtlsRecord(22, 0, "x"))...), byte(1))
	f.Add([]byte{0, 20}, byte(3))
	f.Add(append(frame(stunRequest(1)), 0xff, 0xff, 1), byte(200))
	media := newFakeMedia()
	m := listen(f, Config{Media: media, SourceRate: 1 << 30, GlobalRate: 1 << 30})
	f.Fuzz(func(t *testing.T, in []byte, at byte) {
		control, frames := readStream(t, m, media, bytes.NewReader(in))
		split := min(int(at), len(in))
		again, framesAgain := readStream(t, m, media, io.MultiReader(bytes.NewReader(in[:split]), bytes.NewReader(in[split:])))
		if fmt.Sprint(control, frames) != fmt.Sprint(again, framesAgain) {
			t.Fatal("what comes out depends on how it came in")
		}
		if len(control)+len(frames) > 0 && (len(control) == 0 || !isSTUN([]byte(control[0]))) {
			t.Fatal("passed without a STUN request")
		}
		for _, b := range control {
			if len(b) > maxFrame || classify([]byte(b)) < kindSTUN {
				t.Fatalf("ICE gets %x", b)
			}
		}
		for _, b := range frames {
			if len(b) > maxFrame || classify([]byte(b)) != kindMedia {
				t.Fatalf("the data plane gets %x", b)
			}
		}
	})
}
