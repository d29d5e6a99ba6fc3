// Package netio owns the media sockets.
//
// One reader goroutine per UDP socket reads a batch of datagrams, gives SRTP and SRTCP of
// established endpoints straight to the data plane, and sends what that made of them before it
// waits again: a packet is run to completion and never queued. STUN and DTLS go to ICE, through a
// small bounded queue for each address that looks like a net.PacketConn. Everything else, and
// whatever exceeds a budget, is dropped early and counted.
//
// TCP connections (RFC 4571 frames, for ICE-TCP of RFC 6544) are treated alike: ICE reads STUN
// and DTLS frames from them, media frames never reach it, and all writing passes a bounded queue,
// so that a slow peer loses packets and holds up nobody.
//
// On Linux the sockets stay out of Go's poller but for an epoll instance that asks for input
// only: the poller would ask for output too, and be woken by every packet sent. Elsewhere, and
// over a transport.Net, a portable twin with the same behaviour does one packet per call.
package netio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/deadline"
)

// Media is the data plane as netio sees it.
type Media interface {
	// NewReader returns the data plane's half of a new reading goroutine: one per UDP socket,
	// made by Listen, and one per TCP connection, made when there is something to ask it. It is
	// called from any goroutine. What the data plane wants to send while it handles packets it
	// commits to out, which is the goroutine's own; netio flushes out after each Flush of the
	// Reader. Nobody is told when a TCP connection's Reader is used no more, so it should be
	// kept by nobody else.
	NewReader(out *Batch) Reader

	// Known is what a Reader's is, for any goroutine.
	Known(from Path) bool
}

// Reader is the data plane's half of one reading goroutine. It is not safe for concurrent use
// and is not used concurrently.
type Reader interface {
	// Known reports whether from is the path of an attached endpoint, one whose keys are known.
	// Media is received from known paths alone; their control packets are not rate-limited.
	Known(from Path) bool

	// Receive takes one SRTP or SRTCP packet of a known path. b stays valid and unshared until
	// Flush returns and may be overwritten in place.
	Receive(b []byte, from Path)

	// Flush is called after the last packet of a batch, also of one without media.
	Flush()
}

// Config says what to listen on. Zero values mean the default given.
type Config struct {
	UDPAddrs []netip.AddrPort // one or more sockets each
	TCPAddrs []netip.AddrPort // one listener each

	// SocketsPerAddr bounds the UDP sockets, and reader goroutines, per address. There are no
	// more than processors, which is the default, and one only on the portable twin.
	SocketsPerAddr int

	// MaxSegments bounds the packets of one segmented UDP message: they leave back to back.
	// Default 10, at most 64; 1 turns segmentation off.
	MaxSegments int

	// Inherit are listening sockets of a former process. Those of an address that is to be listened
	// on are duplicated and used, as many as there are; closing them is left to the caller.
	Inherit *Sockets

	// Net replaces the kernel's network, for tests over a virtual one.
	Net transport.Net

	// Media takes the media packets. nil knows no path.
	Media Media

	ControlQueue int // datagrams waiting for ICE, per UDP address; default 1024
	SourceRate   int // control packets per second of one unknown source, or path in ICE; default 200
	GlobalRate   int // control packets per second of all unknown sources; default 20,000

	StreamConns       int           // TCP connections; default 1024
	StreamConnsSource int           // TCP connections of one source; default 32
	StreamQueue       int           // bytes queued for one TCP connection; default 256 KiB
	StreamFirstFrame  time.Duration // from accept to a whole STUN request; default 5 s
	StreamIdle        time.Duration // between frames, and for a write to make way; default 60 s

	Log *slog.Logger // nil: discard
}

func (c *Config) setDefaults() {
	setDefault(&c.MaxSegments, 10)
	c.MaxSegments = min(c.MaxSegments, maxSegments)
	setDefault(&c.ControlQueue, 1024)
	setDefault(&c.SourceRate, 200)
	setDefault(&c.GlobalRate, 20_000)
	setDefault(&c.StreamConns, 1024)
	setDefault(&c.StreamConnsSource, 32)
	setDefault(&c.StreamQueue, 256<<10)
	setDefault(&c.StreamFirstFrame, 5*time.Second)
	setDefault(&c.StreamIdle, 60*time.Second)
	procs := runtime.GOMAXPROCS(0)
	setDefault(&c.SocketsPerAddr, procs)
	c.SocketsPerAddr = min(c.SocketsPerAddr, procs)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Media == nil {
		c.Media = noMedia{}
	}
}

func setDefault[T int | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// noMedia is a data plane that knows no path.
type noMedia struct{}

func (noMedia) NewReader(*Batch) Reader { return noMedia{} }
func (noMedia) Known(Path) bool         { return false }
func (noMedia) Receive([]byte, Path)    {}
func (noMedia) Flush()                  {}

// maxSegments is what every kernel that knows segmented messages takes.
const maxSegments = 64

// maxLocals bounds the addresses to listen on, far below what a Path can tell apart.
const maxLocals = 1024

// Errors of Mux.Path.
var (
	// ErrNoLocal: no socket of ours has the local address, and it is not plain which one is
	// meant.
	ErrNoLocal = errors.New("no such local address")
	// ErrNoConn: no TCP connection with the remote address.
	ErrNoConn = errors.New("no such connection")
)

// Mux is a set of open media sockets.
type Mux struct {
	cfg      Config
	counters counters
	dests    destinations
	budgets  budgets
	started  time.Time
	groups   []*group
	tcp      *streams // never nil

	handover   handover
	stray      atomic.Pointer[func(Stray)] // set by SetStray
	connecting atomic.Bool                 // each path that is proven gets a socket of its own

	wg      sync.WaitGroup // readers and reporter
	stop    context.CancelFunc
	closing sync.Once
	err     error // of closing

	mu      sync.Mutex
	batches int // made so far, guarded by mu: spreads them over the sockets
}

// group is one UDP address with its sockets.
type group struct {
	addr    netip.AddrPort // as bound
	sockets []socket
	conn    *packetConn
}

// socket is one bound UDP socket.
type socket interface {
	// serve reads until the socket is closed. It gives each datagram to rx.datagram and ends
	// each batch with rx.flush.
	serve(rx *receiver)
	// sendBatch sends the packets of b that are due for the given local number, in their order,
	// and tells o what became of them.
	sendBatch(b *Batch, local uint16, o *outlet)
	// sendTo sends one packet at once.
	sendTo(b []byte, to netip.AddrPort) error
	// segments reports whether the socket sends segmented messages.
	segments() bool
	// buffers returns the granted sizes in bytes, 0 if unknown.
	buffers() (read, write int)
	// stop makes serve return.
	stop() error
	// close frees the socket once serve has returned; later sends fail.
	close() error
}

// Listen opens the sockets of cfg and begins to read from them. An address that someone listens
// on already, another instance of this program too, is an error that wraps syscall.EADDRINUSE
// (where the kernel's network is used).
func Listen(cfg Config) (*Mux, error) {
	cfg.setDefaults()
	if cfg.Inherit == nil {
		cfg.Inherit = new(Sockets)
	}
	if len(cfg.UDPAddrs)+len(cfg.TCPAddrs) > maxLocals {
		return nil, fmt.Errorf("listen on %d addresses: at most %d", len(cfg.UDPAddrs)+len(cfg.TCPAddrs), maxLocals)
	}
	m := &Mux{cfg: cfg, budgets: newBudgets(cfg.SourceRate, cfg.GlobalRate), started: time.Now()}
	m.handover.bucket.credit = strayRate * int64(time.Second)
	m.tcp = newStreams(m)
	for _, addr := range cfg.UDPAddrs {
		if err := m.listenUDP(canonical(addr)); err != nil {
			m.abandon()
			return nil, err
		}
	}
	for _, addr := range cfg.TCPAddrs {
		if err := m.tcp.listen(canonical(addr)); err != nil {
			m.abandon()
			return nil, err
		}
	}
	m.start()
	return m, nil
}

func (m *Mux) listenUDP(addr netip.AddrPort) error {
	var sockets []socket
	var bound netip.AddrPort
	var err error
	switch fds := take(m.cfg.Inherit.UDP, addr); {
	case m.cfg.Net != nil:
		sockets, bound, err = openPortable(m.cfg.Net.ListenUDP, addr)
	case len(fds) > 0:
		sockets, bound, err = adoptKernel(fds, m.cfg.MaxSegments)
	default:
		sockets, bound, err = openKernel(addr, m.cfg.SocketsPerAddr, m.cfg.MaxSegments)
	}
	if err != nil {
		return fmt.Errorf("listen on udp %s: %w", addr, err)
	}
	m.groups = append(m.groups, &group{
		addr:    bound,
		sockets: sockets,
		conn: &packetConn{
			mux:      m,
			local:    len(m.groups),
			queue:    newControlQueue(m.cfg.ControlQueue),
			socket:   sockets[0],
			addr:     net.UDPAddrFromAddrPort(bound),
			v6:       bound.Addr().Is6(),
			deadline: deadline.New(),
		},
	})
	return nil
}

// abandon closes what a Listen that fails has opened.
func (m *Mux) abandon() {
	for _, g := range m.groups {
		for _, s := range g.sockets {
			_ = s.stop()
			_ = s.close()
		}
	}
	_ = m.tcp.close()
}

func (m *Mux) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.wg.Go(func() { m.report(ctx) })
	for i, g := range m.groups {
		for k, s := range g.sockets {
			rx := m.newReceiver(i, k)
			m.wg.Go(func() { s.serve(rx) })
		}
	}
	m.tcp.start()
}

// newReceiver returns a receiver for datagrams of address i that sends from socket k of each address.
func (m *Mux) newReceiver(i, k int) *receiver {
	out := m.newBatch(batchSlots, k)
	return &receiver{
		mux:    m,
		queue:  m.groups[i].conn.queue,
		conn:   m.groups[i].conn,
		local:  uint16(i + 1),
		reader: m.cfg.Media.NewReader(out),
		out:    out,
	}
}

// UDPConns returns one connection per UDP address, in the order of Config, for
// ice.NewUDPMuxDefault. They carry STUN and DTLS alone. LocalAddr is the bound *net.UDPAddr. They
// also implement ice.AddrPortReaderWriter.
func (m *Mux) UDPConns() []net.PacketConn {
	conns := make([]net.PacketConn, len(m.groups))
	for i, g := range m.groups {
		conns[i] = g.conn
	}
	return conns
}

// TCPListener returns the listener over all TCP addresses for ice.NewTCPMuxDefault, nil if there
// are none. With more than one address, its Addr is the unspecified address with the port of the
// first. The mux must be given no write buffer of its own.
func (m *Mux) TCPListener() net.Listener {
	if len(m.tcp.listeners) == 0 {
		return nil
	}
	return m.tcp
}

// NewBatch returns a batch for a goroutine that sends outside a Reader. It needs no closing.
func (m *Mux) NewBatch() *Batch {
	m.mu.Lock()
	k := m.batches
	m.batches++
	m.mu.Unlock()
	return m.newBatch(batchSlots, k)
}

// newBatch returns a batch that sends from socket k (modulo their number) of each address.
func (m *Mux) newBatch(slots, k int) *Batch {
	out := &outlet{
		mux:     m,
		sockets: make([]socket, len(m.groups)),
		waiting: make([]int, len(m.groups)),
		marks:   make([]mark, slots),
		state:   newSendState(slots),
	}
	for i, g := range m.groups {
		out.sockets[i] = g.sockets[k%len(g.sockets)]
	}
	return newBatch(slots, out)
}

// Path returns the path of an ICE candidate pair. If no socket of ours is bound to local, as when
// the candidate shows a mapped address, the one socket of remote's address family is meant; if
// there are several the error is ErrNoLocal. A TCP path needs its connection to be open, otherwise
// the error is ErrNoConn.
func (m *Mux) Path(local, remote netip.AddrPort, tcp bool) (Path, error) {
	local, remote = canonical(local), canonical(remote)
	if !remote.IsValid() {
		return Path{}, fmt.Errorf("path to %s: address not valid", remote)
	}
	if tcp {
		return m.tcp.path(local, remote)
	}
	candidate, candidates := 0, 0
	for i, g := range m.groups {
		if g.conn.v6 != remote.Addr().Is6() {
			continue
		}
		if g.addr == local {
			return NewPath(i, remote, false), nil
		}
		candidate = i
		candidates++
	}
	if candidates != 1 {
		return Path{}, fmt.Errorf("path from %s to %s: %w", local, remote, ErrNoLocal)
	}
	return NewPath(candidate, remote, false), nil
}

// proven notes that ICE has written to a path. That of an attached endpoint needs no budget.
func (m *Mux) proven(path Path) {
	if !m.cfg.Media.Known(path) {
		m.budgets.prove(path, m.now())
	}
	if m.connecting.Load() {
		m.connect(path, m.now())
	}
}

// Stats returns the counters.
func (m *Mux) Stats() Stats {
	c := &m.counters
	s := Stats{
		GSO:       true,
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(),
		RxMedia: c.rxMedia.Load(), RxControl: c.rxControl.Load(), RxBatches: c.rxBatches.Load(),
		TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(), TxMessages: c.txMessages.Load(),
		GSOFallbacks: c.fallbacks.Load(),
		TCPConns:     uint64(m.tcp.open()), TCPAccepted: c.acceptedN.Load(),
		Drops: c.snapshotDrops(),
	}
	for _, g := range m.groups {
		for _, sock := range g.sockets {
			read, write := sock.buffers()
			if s.Sockets == 0 || read < s.ReadBufferBytes {
				s.ReadBufferBytes = read
			}
			if s.Sockets == 0 || write < s.WriteBufferBytes {
				s.WriteBufferBytes = write
			}
			s.Sockets++
			s.GSO = s.GSO && sock.segments()
		}
	}
	s.GSO = s.GSO && s.Sockets > 0
	s.FailingDestinations, s.PausedDestinations, s.UnsegmentedDestinations = m.dests.counts(m.now())
	return s
}

// SendFaults returns what went wrong with sending lately, by destination and in no order. A
// destination is among them for a minute after the latest error; there are at most 4,096.
func (m *Mux) SendFaults() []SendFault { return m.dests.faults(m.now()) }

// Close closes the sockets and connections and waits for all goroutines of the mux. ICE's muxes
// are to be closed before: media of TCP connections is read on their goroutines. Batches may
// still be used and send nothing.
func (m *Mux) Close() error {
	m.closing.Do(func() {
		m.stop()
		var errs []error
		for _, g := range m.groups {
			g.conn.queue.close()
			for _, s := range g.sockets {
				errs = append(errs, s.stop())
			}
		}
		errs = append(errs, m.tcp.close())
		m.wg.Wait()
		for _, g := range m.groups {
			for _, s := range g.sockets {
				errs = append(errs, s.close())
			}
		}
		m.err = errors.Join(errs...)
	})
	return m.err
}

// now returns the time since the mux was opened, never 0.
func (m *Mux) now() time.Duration { return max(1, time.Since(m.started)) }
