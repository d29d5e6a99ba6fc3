package netio

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// A listening address can pass from one process to its successor while endpoints send to it. Three
// things make that possible without the loss of a packet:
//
//   - The successor gets duplicates of the sockets themselves (Sockets, Config.Inherit). They never
//     close, so that there is always a queue to wait in.
//   - The kernel gives a datagram to a socket that is connected to its source, if there is one, and to
//     one that listens only otherwise. So the process that gives the sockets away opens one more for
//     each path that it serves (Connect), bound to the same address, and goes on reading those after
//     it has stopped to read the others (Release).
//   - What still comes to the wrong process is passed on: SetStray, Inject.
//
// The process that takes over connects sockets for its own paths too: a datagram that no connected
// socket wants is compared with all of them, one after the other.

// ErrNoHandover says that listening sockets cannot be passed on here.
var ErrNoHandover = errors.New("media sockets cannot be handed over on this platform")

// A Socket is an open descriptor that somebody has to close, and what it listens on.
type Socket struct {
	Addr netip.AddrPort
	FD   int
}

// Sockets are the listening sockets of a Mux on their way to another one.
type Sockets struct {
	UDP []Socket // in order of their addresses, those of one address together
	TCP []Socket
}

const (
	// maxConnected bounds the sockets connected for paths. Each is a descriptor, and makes what no
	// connected socket wants dearer by some nanoseconds a datagram.
	maxConnected = 16_384

	// idleConnected is how long a connected socket outlives its last use: as long as consent to
	// send (RFC 7675).
	idleConnected = provenTime

	// strayRate is how many datagrams per second are passed on to other processes.
	strayRate = 2000
)

// A Stray is a datagram that belongs to another process which serves the same address.
type Stray struct {
	Local, Remote netip.AddrPort
	Data          []byte
}

// handover is the part of a Mux that has to do with other processes. Its zero value is that of one
// without.
type handover struct {
	inject struct {
		sync.Mutex
		receivers map[uint16]*receiver // by local number
	}

	mu       sync.Mutex
	bucket   bucket // of strays
	failures uint64 // to connect
}

// Sockets returns duplicates of the listening sockets.
func (m *Mux) Sockets() (_ *Sockets, err error) {
	out := new(Sockets)
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	for _, g := range m.groups {
		for _, s := range g.sockets {
			l, ok := s.(listener)
			if !ok {
				return nil, ErrNoHandover
			}
			fd, err := l.duplicate()
			if err != nil {
				return nil, fmt.Errorf("duplicate udp socket: %w", err)
			}
			out.UDP = append(out.UDP, Socket{g.addr, fd})
		}
	}
	if out.TCP, err = m.tcp.duplicate(); err != nil {
		return nil, err
	}
	return out, nil
}

// listener is a socket that can be handed over.
type listener interface {
	duplicate() (fd int, err error)
	// connect opens a socket for the path, unless there is one, and notes that it is used.
	connect(path Path, now time.Duration) error
	// sweep closes the sockets of paths that are neither kept nor used since a time.
	sweep(since time.Duration, keep func(Path) bool)
	// release stops the reading of what is not connected.
	release() error
	connectedPaths() int
}

func (m *Mux) listeners(f func(l listener)) {
	for _, g := range m.groups {
		for _, s := range g.sockets {
			if l, ok := s.(listener); ok {
				f(l)
			}
		}
	}
}

// Connect opens a connected socket for each of the paths that is in use, and from now on for each
// path that ICE writes to. It is no error if that fails: the path then depends on strays.
func (m *Mux) Connect(paths []Path) error {
	if m.cfg.Net != nil {
		return ErrNoHandover
	}
	for _, g := range m.groups {
		if _, ok := g.sockets[0].(listener); !ok || g.addr.Addr().IsUnspecified() {
			return fmt.Errorf("connect sockets to %s: %w", g.addr, ErrNoHandover)
		}
	}
	m.connecting.Store(true)
	now := m.now()
	for _, p := range paths {
		if !p.TCP() && (m.cfg.Media.Known(p) || m.budgets.isProven(p, now)) {
			m.connect(p, now)
		}
	}
	return nil
}

// Settle ends what Connect has begun: paths that are new need no socket any more. Those that have one
// keep it.
func (m *Mux) Settle() { m.connecting.Store(false) }

// connect opens a socket for a path that is in use.
func (m *Mux) connect(p Path, now time.Duration) {
	if p.TCP() || p.local == 0 || int(p.local) > len(m.groups) {
		return
	}
	g := m.groups[p.local-1]
	l, ok := g.sockets[int(p.Spread())%len(g.sockets)].(listener)
	if !ok {
		return
	}
	err := l.connect(p, now)
	if err == nil {
		return
	}
	m.handover.mu.Lock()
	m.handover.failures++
	first := m.handover.failures == 1
	m.handover.mu.Unlock()
	if first {
		m.cfg.Log.Warn("no socket for a path of its own: it may be cut at the next upgrade", "err", err)
	}
}

// sweepConnected closes the sockets of paths that are over.
func (m *Mux) sweepConnected() {
	if since := m.now() - idleConnected; since > 0 {
		m.listeners(func(l listener) { l.sweep(since, m.cfg.Media.Known) })
	}
}

// Connected returns how many paths have a socket of their own.
func (m *Mux) Connected() (n int) {
	m.listeners(func(l listener) { n += l.connectedPaths() })
	return n
}

// Release stops to accept TCP connections and to read datagrams of paths that have no socket of their
// own: a successor does. Everything can still be sent.
func (m *Mux) Release() error {
	errs := []error{m.tcp.release()}
	m.listeners(func(l listener) { errs = append(errs, l.release()) })
	return errors.Join(errs...)
}

// SetStray gives datagrams to f that may belong to another process: checks that name no agent of
// ours, and what came to a socket while it was not connected yet. f is called from any goroutine,
// must not block, and must not keep what it is given. nil ends it.
func (m *Mux) SetStray(f func(Stray)) {
	if f == nil {
		m.stray.Store(nil)
		return
	}
	m.stray.Store(&f)
}

// strayed passes a datagram on, if there is somebody.
func (m *Mux) strayed(b []byte, from Path) {
	f := m.stray.Load()
	if f == nil {
		return
	}
	m.handover.mu.Lock()
	ok := m.handover.bucket.take(m.now(), strayRate)
	m.handover.mu.Unlock()
	if ok {
		(*f)(Stray{Local: m.groups[from.local-1].addr, Remote: from.Remote(), Data: b})
	}
}

// Inject takes a datagram that came to another process, as if it had come to a socket of ours. It
// counts against the same budgets, and is not passed on again. It changes s.Data.
func (m *Mux) Inject(s Stray) {
	if len(s.Data) > maxDatagram || !s.Remote.IsValid() {
		return
	}
	for i, g := range m.groups {
		if g.addr == canonical(s.Local) && g.conn.v6 == canonical(s.Remote).Addr().Is6() {
			m.injectTo(i, s)
			return
		}
	}
}

func (m *Mux) injectTo(i int, s Stray) {
	in := &m.handover.inject
	path := NewPath(i, canonical(s.Remote), false)
	in.Lock()
	defer in.Unlock()
	rx := in.receivers[path.local]
	if rx == nil {
		rx = m.newReceiver(i, 0)
		rx.foreign = true
		if in.receivers == nil {
			in.receivers = make(map[uint16]*receiver)
		}
		in.receivers[path.local] = rx
	}
	rx.datagram(s.Data, path)
	rx.flush()
}

// Close closes the descriptors.
func (s *Sockets) Close() {
	for _, l := range [][]Socket{s.UDP, s.TCP} {
		for _, one := range l {
			closeFD(one.FD)
		}
	}
	s.UDP, s.TCP = nil, nil
}

// take takes the sockets of one address.
func take(from []Socket, addr netip.AddrPort) (fds []int) {
	for _, s := range from {
		if canonical(s.Addr) == addr {
			fds = append(fds, s.FD)
		}
	}
	return fds
}
