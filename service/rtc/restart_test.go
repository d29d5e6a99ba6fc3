package rtc_test

import (
	"context"
	"net"

	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v4"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// movable is a network of a host that can change its address: what it has open goes dead, and what it
// opens from then on has another address.
type movable struct {
	transport.Net
	mu    sync.Mutex
	conns []*movableConn
}

func (m *movable) track(c transport.UDPConn) *movableConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := &movableConn{UDPConn: c}
	m.conns = append(m.conns, mc)
	return mc
}

func (m *movable) ListenUDP(network string, a *net.UDPAddr) (transport.UDPConn, error) {
	c, err := m.Net.ListenUDP(network, a)
	if err != nil {
		return nil, err
	}
	return m.track(c), nil
}

// kill cuts off all that is open.
func (m *movable) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		c.dead.Store(true)
	}
	m.conns = nil
}

type movableConn struct {
	transport.UDPConn
	dead atomic.Bool
}

func (c *movableConn) WriteTo(b []byte, a net.Addr) (int, error) {
	if c.dead.Load() {
		return len(b), nil
	}
	return c.UDPConn.WriteTo(b, a)
}

func (c *movableConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, a, err := c.UDPConn.ReadFrom(b)
		if err != nil || !c.dead.Load() {
			return n, a, err
		}
	}
}

// moving is a call of two who talk to each other, one of whom can move.
type moving struct {
	b        *rtctest.Backend
	net      *movable
	ann, ben *rtctest.Endpoint
	ctx      context.Context
	stop     func()
}

func startMoving(t *testing.T, channelSignalling bool, change func(*rtc.Config)) *moving {
	t.Helper()
	ctx := deadline(t, 60*time.Second)
	n := rtctest.NewNetwork(t)
	serve := n.Serve(t)
	b := rtctest.NewBackend(t, func(cfg *rtc.Config) {
		serve(cfg)
		if change != nil {
			change(cfg)
		}
	})
	host, _ := n.Host(t)
	m := &moving{b: b, net: &movable{Net: host}, ctx: ctx}
	other, _ := n.Host(t)
	m.ann = b.Join(t, "g", "call", "ann", rtctest.EndpointConfig{Net: m.net, ChannelSignalling: channelSignalling})
	m.ben = b.Join(t, "g", "call", "ben", rtctest.EndpointConfig{Net: other})
	connectAndPublish(ctx, t, m.ann, "ann")
	connectAndPublish(ctx, t, m.ben, "ben")
	m.stop = rtctest.Talk(t, map[string]*rtctest.Endpoint{"ann": m.ann, "ben": m.ben})
	t.Cleanup(func() { m.stop() })
	m.await(t, m.ben, "ann", 100)
	m.await(t, m.ann, "ben", 50)
	return m
}

func (m *moving) await(t *testing.T, e *rtctest.Endpoint, from string, packets int) {
	t.Helper()
	start := e.Heard(from).Packets
	if err := e.Await(m.ctx, func(heard func(string) rtctest.Heard) bool {
		return heard(from).Packets >= start+packets
	}); err != nil {
		t.Fatalf("packets of %s: %v", from, err)
	}
}

// P17, F15: the endpoint's address changes; it is offered a restart of ICE over the relay, and all goes
// on. With signalling over the data channel, its answer comes only if its checks are taken before it.
func TestRestartAfterMove(t *testing.T) {
	for name, c := range map[string]struct{ channel, full bool }{
		"relay, lite": {}, "channel, lite": {channel: true}, "relay, full": {full: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMoving(t, c.channel, func(cfg *rtc.Config) { cfg.Lite = !c.full })
			offers := m.ben.Offers()
			start := time.Now()
			m.net.kill()
			m.await(t, m.ben, "ann", 20)
			t.Logf("ann heard after %v", time.Since(start))
			m.await(t, m.ann, "ben", 20)
			t.Logf("ben heard after %v", time.Since(start))
			if m.ben.Offers() != offers {
				t.Error("another endpoint was offered something")
			}
			if !m.b.Server.Exists("g", "ann") {
				t.Error("the session has ended")
			}
			for _, e := range m.b.Events("ann") {
				if e.Kind == rtc.Closed {
					t.Errorf("closed: %v", e.Reason)
				}
			}
			// And once more.
			m.await(t, m.ben, "ann", 100)
			start = time.Now()
			m.net.kill()
			m.await(t, m.ben, "ann", 20)
			m.await(t, m.ann, "ben", 20)
			t.Logf("again after %v", time.Since(start))
			if err := m.ann.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// F16: an endpoint that does not come back is offered a restart a few times, and its session ends when
// ICE would have given it up, for the same reason.
func TestRestartOfNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	m := startMoving(t, false, nil)
	before := len(restarts(t, m.b, "ann"))
	start := time.Now()
	m.net.kill()
	m.ann.Close()
	err := m.b.Await(m.ctx, "ann", func(events []rtc.Event) bool {
		last := events[len(events)-1]
		return last.Kind == rtc.Closed && last.Reason == rtc.CloseICE
	})
	took := time.Since(start)
	if err != nil || took > 31*time.Second || took < 25*time.Second {
		t.Errorf("ended after %v: %v", took, err)
	}
	if n := len(restarts(t, m.b, "ann")) - before; n < 2 || n > 10 {
		t.Errorf("%d offers", n)
	} else {
		t.Logf("%d offers, ended after %v", n, took)
	}
}
