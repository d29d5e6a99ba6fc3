package ws_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"

	"rtcd/service/api/ws"
	"rtcd/service/metrics"
)

// control runs f with the descriptor of a TCP connection.
func control(t *testing.T, c *net.TCPConn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
}

// A receiver reads the messages of one connection and sorts them by session into a log that
// outlives the connection.
type receiver struct {
	conn *websocket.Conn
	tcp  *net.TCPConn
	done chan struct{}
}

// A numbered log checks that each session's messages come once, in order, without a gap.
type numbered struct {
	mu   sync.Mutex
	next map[string]int
	errs []string
}

func (l *numbered) add(session string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := l.next[session]; n != want && len(l.errs) < 10 {
		l.errs = append(l.errs, fmt.Sprintf("session %s: got message %d, want %d", session, n, want))
	}
	l.next[session] = n + 1
}

func receive(t *testing.T, r *rig, secure bool, l *numbered) *receiver {
	t.Helper()
	rc := &receiver{done: make(chan struct{})}
	d := websocket.Dialer{
		HandshakeTimeout: patience,
		TLSClientConfig:  &tls.Config{InsecureSkipVerify: true},
		NetDial: func(network, _ string) (net.Conn, error) {
			c, err := net.Dial(network, r.addr)
			if err == nil {
				rc.tcp = c.(*net.TCPConn)
			}
			return c, err
		},
	}
	url := "ws://" + r.addr + "/ws"
	if secure {
		url = "wss://" + r.addr + "/ws"
	}
	conn, _, err := d.Dial(url, basic("c1"))
	if err != nil {
		t.Fatal(err)
	}
	rc.conn = conn
	conn.SetPingHandler(func(payload string) error {
		// That no pong can be sent any more is no reason to leave unread what has arrived.
		_ = conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(patience))
		return nil
	})
	go func() {
		defer close(rc.done)
		for {
			_, p, err := conn.ReadMessage()
			if err != nil {
				return
			}
			kind, data, err := decode(p)
			if err != nil || kind != "rtc" {
				continue
			}
			payload, _, _ := strings.Cut(string(data["data"].([]byte)), " ")
			n, _ := strconv.Atoi(payload)
			l.add(data["session_id"].(string), n)
		}
	}()
	return rc
}

// deafen makes the kernel drop whatever comes for the connection, unacknowledged, and reads what
// came before. A frame of our own carries the acknowledgement of that, which the kernel may
// still delay: nobody can know of bytes that were read and not acknowledged.
func (rc *receiver) deafen(t *testing.T) {
	t.Helper()
	dropAll := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	control(t, rc.tcp, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &dropAll[0]})
	})
	eventually(t, "receive buffer is empty", func() bool {
		n := 0
		select {
		case <-rc.done: // the server was faster
			return true
		default:
		}
		control(t, rc.tcp, func(fd int) (err error) {
			n, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
			return err
		})
		return n == 0
	})
	_ = rc.conn.WriteControl(websocket.PongMessage, nil, time.Now().Add(patience))
}

func (rc *receiver) end(t *testing.T, how string, r *rig) {
	t.Helper()
	switch how {
	case "RST":
		rc.deafen(t)
		_ = rc.tcp.SetLinger(0)
		_ = rc.tcp.Close()
	case "FIN": // half closed: what is under way still arrives
		_ = rc.tcp.CloseWrite()
	case "black hole":
		rc.deafen(t)
		eventually(t, "server gives the dead connection up", func() bool { return r.Connections("c1") == 0 })
		_ = rc.tcp.SetReadDeadline(time.Now())
	}
	select {
	case <-rc.done:
	case <-time.After(patience):
		t.Fatalf("%s: connection does not end", how)
	}
	_ = rc.conn.Close()
}

// The backend's connection is dropped in every way at random points of a stream of messages.
func TestNothingIsLostNorDoubled(t *testing.T) { // F11, S1
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			testDrops(t, secure)
		})
	}
}

func testDrops(t *testing.T, secure bool) {
	cycles := 50
	if testing.Short() {
		cycles = 10
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	cfg := ws.Config{
		PingInterval: 60 * time.Millisecond, PongTimeout: 300 * time.Millisecond,
		ParkedMessages: 1 << 20, ParkedBytes: 1 << 30, ParkedClientMessages: 1 << 20, ParkedClientBytes: 1 << 30,
		QueueMessages: 1 << 20, QueueBytes: 1 << 30,
	}
	wrap := func(ln net.Listener) net.Listener { return ln }
	if secure {
		cert := selfSigned(t)
		wrap = func(ln net.Listener) net.Listener {
			return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
		}
	}
	r := start(t, cfg, wrap)
	sessions := []string{"s1", "s2", "s3"}
	l := &numbered{next: make(map[string]int)}

	rc := receive(t, r, secure, l)
	for _, s := range sessions {
		p := message("join", map[string]any{"callID": "call", "userID": "u", "sessionID": s})
		if err := rc.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
			t.Fatal(err)
		}
		r.calls.await(t, "join c1/"+s, 1)
	}

	stop, sent := make(chan struct{}), make(chan int)
	go func() { // numbered messages of mixed sizes, in bursts
		random := mathrand.New(mathrand.NewPCG(seed, 1))
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		n := 0
		for {
			for range random.IntN(4) {
				for _, s := range sessions {
					r.rtc("c1", s, strconv.Itoa(n)+" "+strings.Repeat("x", random.IntN(3000)))
				}
				n++
			}
			select {
			case <-tick.C:
			case <-stop:
				sent <- n
				return
			}
		}
	}()
	for range cycles {
		time.Sleep(time.Duration(random.IntN(15)) * time.Millisecond) // the random point
		how := "RST"
		switch n := random.IntN(10); {
		case n == 0:
			how = "black hole"
		case n < 5:
			how = "FIN"
		}
		rc.end(t, how, r)
		rc = receive(t, r, secure, l)
	}
	close(stop)
	total := <-sent
	eventually(t, "last message of each session", func() bool {
		select {
		case <-rc.done: // too slow with its pongs, on a busy machine
			_ = rc.conn.Close()
			rc = receive(t, r, secure, l)
		default:
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.errs) > 0 || l.next["s1"] == total && l.next["s2"] == total && l.next["s3"] == total
	})
	l.mu.Lock()
	for _, e := range l.errs {
		t.Error(e)
	}
	l.mu.Unlock()
	t.Logf("%d messages for each of %d sessions over %d connections", total, len(sessions), cycles+1)
	_ = rc.conn.Close()
	<-rc.done
}

// A second connection takes over at once, with what the first did not deliver.
func TestAnotherConnectionTakesOver(t *testing.T) {
	r := start(t, ws.Config{})
	l := &numbered{next: make(map[string]int)}
	first := receive(t, r, false, l)
	p := message("join", map[string]any{"callID": "call", "userID": "u", "sessionID": "s1"})
	if err := first.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		t.Fatal(err)
	}
	r.calls.await(t, "join c1/s1", 1)
	second := r.dial(t, "c1")
	r.rtc("c1", "s1", "0")
	eventually(t, "message 0", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.next["s1"] == 1
	})
	first.deafen(t)
	for i := 1; i <= 20; i++ {
		r.rtc("c1", "s1", strconv.Itoa(i))
	}
	_ = first.tcp.SetLinger(0)
	_ = first.tcp.Close()
	<-first.done
	for i := 1; i <= 20; i++ {
		second.expect("s1", strconv.Itoa(i))
	}
	if l.next["s1"] != 1 {
		t.Errorf("the deaf connection got %d messages, want 1", l.next["s1"])
	}
}

func TestStalledReaderIsClosedAndSlowsNobody(t *testing.T) { // F10, S3, P5
	t.Run("write times out", func(t *testing.T) { testStall(t, time.Second, 60, ws.LimitStall) })
	t.Run("queue overflows", func(t *testing.T) { testStall(t, 2*patience, 400, ws.LimitQueue) })
}

// testStall sends messages of 100 kB to a client that does not read, and small ones to another.
func testStall(t *testing.T, stall time.Duration, messages int, limit metrics.Limit) {
	r := start(t, ws.Config{WriteTimeout: stall})
	stalled, healthy := r.dial(t, "a"), r.dial(t, "b")
	_ = stalled.tcp.SetReadBuffer(4096)
	stalled.join("s1")
	healthy.join("s1")
	r.calls.await(t, "join a/s1", 1)
	r.calls.await(t, "join b/s1", 1)
	pad := strings.Repeat("x", 100_000)
	var delays []time.Duration
	began := time.Now()
	for i := 0; i < messages || r.Connections("a") == 1; i++ {
		if time.Since(began) > patience {
			t.Fatal("stalled connection is never closed")
		}
		if i < messages {
			r.rtc("a", "s1", pad)
		}
		sent := time.Now()
		r.rtc("b", "s1", strconv.Itoa(i))
		healthy.expect("s1", strconv.Itoa(i))
		delays = append(delays, time.Since(sent))
	}
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	t.Logf("other tenant: p99 %v, worst %v; stalled one closed after %v", p99, delays[len(delays)-1], time.Since(began))
	if p99 > 50*time.Millisecond {
		t.Errorf("p99 of the other tenant is %v, want at most 50 ms", p99)
	}
	if r.value(t, "rtcd_limit_hits_total", map[string]string{"limit": string(limit)}) == 0 {
		t.Errorf("no hit of limit %s", limit)
	}
	if !r.calls.Exists("a", "s1") {
		t.Error("the stalled client lost its session")
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
