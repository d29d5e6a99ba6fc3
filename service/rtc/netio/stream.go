package netio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// streams are the TCP listeners with their connections. It is the net.Listener ICE accepts from:
// a connection appears there once its first frame, a STUN request, has come.
type streams struct {
	mux   *Mux
	ready chan *stream  // connections for Accept
	done  chan struct{} // closed by Close: no more connections
	wg    sync.WaitGroup

	listeners []net.Listener // fixed once started

	closeOnce sync.Once
	closeErr  error

	mu       sync.RWMutex
	conns    map[Path]*stream // guarded by mu, as is the rest
	sources  map[[16]byte]int // connections by source
	locals   []netip.Addr     // by local number; addresses connections were accepted on
	made     int              // connections so far: spreads them over the UDP sockets
	shutdown bool
}

func newStreams(m *Mux) *streams {
	return &streams{
		mux:     m,
		ready:   make(chan *stream),
		done:    make(chan struct{}),
		conns:   make(map[Path]*stream),
		sources: make(map[[16]byte]int),
	}
}

// listen opens one listener.
func (t *streams) listen(addr netip.AddrPort) error {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	tcpAddr := net.TCPAddrFromAddrPort(addr)
	var l net.Listener
	var err error
	switch fds := take(t.mux.cfg.Inherit.TCP, addr); {
	case t.mux.cfg.Net != nil:
		l, err = t.mux.cfg.Net.ListenTCP(network, tcpAddr)
	case len(fds) > 0:
		l, err = adoptListener(fds[0])
	default:
		l, err = net.ListenTCP(network, tcpAddr)
	}
	if err != nil {
		return fmt.Errorf("listen on tcp %s: %w", addr, err)
	}
	t.listeners = append(t.listeners, l)
	return nil
}

// start begins to accept.
func (t *streams) start() {
	for _, l := range t.listeners {
		t.wg.Go(func() { t.acceptFrom(l) })
	}
}

// acceptFrom admits the connections of one listener until it is closed. Other errors (too many
// open files, above all) pass: it waits and tries again.
func (t *streams) acceptFrom(l net.Listener) {
	const longest = time.Second
	wait := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		if err == nil {
			wait = 5 * time.Millisecond
			t.admit(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) { // here, or by release
			return
		}
		select {
		case <-t.done:
			return
		case <-time.After(wait):
			wait = min(2*wait, longest)
		}
	}
}

// duplicate returns duplicates of the listeners.
func (t *streams) duplicate() ([]Socket, error) {
	var out []Socket
	for _, l := range t.listeners {
		fd, err := duplicateListener(l)
		if err != nil {
			return out, fmt.Errorf("duplicate tcp listener: %w", err)
		}
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			closeFD(fd)
			return out, ErrNoHandover
		}
		out = append(out, Socket{canonical(addr.AddrPort()), fd})
	}
	return out, nil
}

// release ends the accepting of connections. Those that are open stay.
func (t *streams) release() error {
	var errs []error
	for _, l := range t.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close tcp listener: %w", err))
		}
	}
	return errors.Join(errs...)
}

// admit starts a connection if the limits allow, and closes it otherwise.
func (t *streams) admit(conn net.Conn) {
	remote, okRemote := conn.RemoteAddr().(*net.TCPAddr)
	local, okLocal := conn.LocalAddr().(*net.TCPAddr)
	if !okRemote || !okLocal {
		_ = conn.Close()
		return
	}
	s, why, ok := t.register(conn, canonical(local.AddrPort()), canonical(remote.AddrPort()))
	if !ok {
		t.mux.counters.drop(why)
		if l, ok := conn.(interface{ SetLinger(sec int) error }); ok {
			_ = l.SetLinger(0) // leave nothing behind for a connection never served
		}
		_ = conn.Close()
		return
	}
	if c, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		// What the kernel holds back is late media too. Refusal is tolerated.
		_ = c.SetWriteBuffer(t.mux.cfg.StreamQueue)
	}
	t.mux.counters.acceptedN.Add(1)
	go func() {
		defer t.wg.Done()
		s.run()
	}()
}

// register enters a connection under its path and adds its goroutine to the wait group.
func (t *streams) register(conn net.Conn, local, remote netip.AddrPort) (*stream, Drop, bool) {
	cfg := &t.mux.cfg
	source := sourceKey(remote.Addr().As16())

	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.shutdown:
		return nil, DropNoPath, false
	case len(t.conns) >= cfg.StreamConns:
		return nil, DropConnLimit, false
	case t.sources[source] >= cfg.StreamConnsSource:
		return nil, DropConnSource, false
	}
	path := NewPath(t.localNumber(local.Addr()), remote, true)
	if t.conns[path] != nil || path.local == 0 {
		// The port was taken up again before we noticed the end of the connection before.
		return nil, DropNoPath, false
	}
	s := newStream(t, conn, path, t.made)
	t.made++
	t.conns[path] = s
	t.sources[source]++
	t.wg.Add(1)
	return s, 0, true
}

// localNumber returns the number of a local address, a new one if it has none. t.mu is held.
func (t *streams) localNumber(addr netip.Addr) int {
	for i, a := range t.locals {
		if a == addr {
			return i
		}
	}
	if len(t.locals) == maxLocals {
		return -1 // more addresses than we ever listen on
	}
	t.locals = append(t.locals, addr)
	return len(t.locals) - 1
}

// remove takes a connection out of the tables.
func (t *streams) remove(s *stream) {
	source := sourceKey(s.path.addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[s.path] != s {
		return
	}
	delete(t.conns, s.path)
	if t.sources[source]--; t.sources[source] <= 0 {
		delete(t.sources, source)
	}
}

// send queues one packet on the connection of a path.
func (t *streams) send(packet []byte, to Path, tx *txCounts) {
	t.mu.RLock()
	s := t.conns[to]
	t.mu.RUnlock()
	if s == nil {
		tx.drop(DropNoPath, 1)
		return
	}
	if why, ok := s.out.push(packet, false); !ok {
		tx.drop(why, 1)
		return
	}
	tx.packets++
	tx.bytes += uint64(len(packet))
}

// path finds the connection of a candidate pair, see Mux.Path.
func (t *streams) path(local, remote netip.AddrPort) (Path, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found Path
	n := 0
	for i, addr := range t.locals {
		path := NewPath(i, remote, true)
		if t.conns[path] == nil {
			continue
		}
		if addr == local.Addr() {
			return path, nil
		}
		found = path
		n++
	}
	switch n {
	case 0:
		return Path{}, fmt.Errorf("tcp path from %s to %s: %w", local, remote, ErrNoConn)
	case 1:
		return found, nil
	default:
		return Path{}, fmt.Errorf("tcp path from %s to %s: %w", local, remote, ErrNoLocal)
	}
}

// open returns the number of connections.
func (t *streams) open() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.conns)
}

// Accept returns the next connection whose first frame is a STUN request. The only error is that
// the listener is closed.
func (t *streams) Accept() (net.Conn, error) {
	select {
	case <-t.done:
	default:
		select {
		case s := <-t.ready:
			return s, nil
		case <-t.done:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: t.Addr(), Err: net.ErrClosed}
}

// Addr returns the address of the one listener, or the unspecified address if there are several.
func (t *streams) Addr() net.Addr {
	first := t.listeners[0].Addr()
	if addr, ok := first.(*net.TCPAddr); ok && len(t.listeners) > 1 {
		return &net.TCPAddr{IP: net.IPv6unspecified, Port: addr.Port}
	}
	return first
}

// Close closes the listeners. Connections that were accepted stay open.
func (t *streams) Close() error {
	t.closeOnce.Do(func() {
		close(t.done)
		for _, l := range t.listeners {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) && t.closeErr == nil {
				t.closeErr = fmt.Errorf("close tcp listener: %w", err)
			}
		}
	})
	return t.closeErr
}

// close ends everything and waits for it.
func (t *streams) close() error {
	err := t.Close()
	t.mu.Lock()
	t.shutdown = true
	conns := make([]*stream, 0, len(t.conns))
	for _, s := range t.conns {
		conns = append(conns, s)
	}
	t.mu.Unlock()
	for _, s := range conns {
		s.end()
	}
	t.wg.Wait()
	return err
}
