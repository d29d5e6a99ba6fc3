package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"rtcd/service/api/internal/quietlog"
	"rtcd/service/api/internal/stream"
	"rtcd/service/metrics"
)

// Limits of a listener by name, as counted in rtcd_limit_hits_total.
const (
	LimitListenerConnections metrics.Limit = "api_connections"
	LimitAddressConnections  metrics.Limit = "api_connections_per_address"
	LimitBody                metrics.Limit = "api_body"
)

// ServerConfig holds the settings of one listener. Zero values mean the defaults named with each
// field.
type ServerConfig struct {
	Address string // host:port
	// Listener is bound already, by a former process; nil: Address is bound.
	Listener *net.TCPListener
	// CertFile and KeyFile turn TLS (1.2 or later) on. They are read again when they change.
	CertFile, KeyFile string
	// ClientAuth asks peers for certificates of the authorities in ClientCAFile, and of no others.
	// The file is read again when it changes. What verified is in a request's TLS.VerifiedChains.
	ClientAuth   ClientAuth
	ClientCAFile string

	HeaderTimeout time.Duration // 5 s to read the header of a request
	BodyTimeout   time.Duration // 10 s more to read its body
	WriteTimeout  time.Duration // 60 s from the end of the header to the end of the answer
	IdleTimeout   time.Duration // 60 s between two requests
	HeaderBytes   int           // 16 KiB

	MaxConnections           int // 4,096
	MaxConnectionsPerAddress int // 256 per IPv4 address or IPv6 /64; negative: no limit
}

func (c ServerConfig) withDefaults() ServerConfig {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&c.HeaderTimeout, 5 * time.Second}, {&c.BodyTimeout, 10 * time.Second},
		{&c.WriteTimeout, 60 * time.Second}, {&c.IdleTimeout, 60 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	for _, d := range []struct {
		value *int
		or    int
	}{{&c.HeaderBytes, 16 << 10}, {&c.MaxConnections, 4096}, {&c.MaxConnectionsPerAddress, 256}} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	return c
}

// A Server serves one handler on one listener.
type Server struct {
	http  *http.Server
	ln    net.Listener
	bound *net.TCPListener // below ln
}

// Listen binds the address of cfg and, for TLS, loads the certificate. Connections wait until
// Serve is called. Metrics and log may be nil.
func Listen(ctx context.Context, cfg ServerConfig, h http.Handler, m *metrics.Metrics, log *slog.Logger) (*Server, error) {
	cfg = cfg.withDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if m == nil {
		m = metrics.New()
	}
	quiet := quietlog.New(log)
	var certs *certificates
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		var err error
		files := tlsFiles{cfg.CertFile, cfg.KeyFile, cfg.ClientCAFile}
		if certs, err = loadCertificates(files, cfg.ClientAuth, log); err != nil {
			return nil, err
		}
	} else if cfg.ClientAuth != NoClientAuth {
		return nil, errors.New("listen: certificates of clients need TLS")
	}
	bound := cfg.Listener
	if bound == nil {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", cfg.Address)
		if err != nil {
			return nil, fmt.Errorf("listen for the API: %w", err)
		}
		bound = l.(*net.TCPListener)
	}
	var ln net.Listener = &limitListener{
		TCPListener: bound, total: cfg.MaxConnections, perAddress: cfg.MaxConnectionsPerAddress,
		open: make(map[netip.Prefix]int), metrics: m, quiet: quiet,
	}
	ln = stream.Listener(ln)
	if certs != nil {
		ln = tls.NewListener(ln, certs.config())
		m.CertExpiry(certs.expiry)
	}
	return &Server{ln: ln, bound: bound, http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cfg.HeaderTimeout,
		ReadTimeout:       cfg.HeaderTimeout + cfg.BodyTimeout,
		WriteTimeout:      cfg.WriteTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.HeaderBytes,
		ErrorLog:          stdlog.New(quietWriter{quiet}, "", 0),
	}}, nil
}

// Socket is what the server listens on, to be handed to a successor.
func (s *Server) Socket() syscall.Conn { return s.bound }

// Addr returns the address the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve serves until Shutdown, and then returns nil. Any other end is an error.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.ln.Addr(), err)
	}
	return nil
}

// Shutdown stops to listen and waits for requests in flight until ctx is done; then it cuts
// them. WebSockets are not its concern.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	_ = s.ln.Close() // if Serve was never called
	return err
}

// A quietWriter carries what net/http has to say about bad peers into the log.
type quietWriter struct{ quiet *quietlog.Logger }

// Write implements io.Writer.
func (w quietWriter) Write(p []byte) (int, error) {
	w.quiet.Warn("http connection failed", "err", string(p[:min(len(p), 256)]))
	return len(p), nil
}

var _ io.Writer = quietWriter{}

// A limitListener closes connections beyond the limits as soon as they are accepted: whoever
// holds many cannot keep others from being served.
type limitListener struct {
	*net.TCPListener
	total, perAddress int
	metrics           *metrics.Metrics
	quiet             *quietlog.Logger

	mu    sync.Mutex
	count int
	open  map[netip.Prefix]int
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		peer := sourceOf(c)
		limit := l.admit(peer)
		if limit == "" {
			return &limitedConn{TCPConn: c, l: l, peer: peer}, nil
		}
		_ = c.Close()
		l.metrics.LimitHit(limit)
		l.quiet.Warn("connection refused: too many", "limit", limit, "remoteAddr", c.RemoteAddr().String())
	}
}

// admit counts a connection, or names the limit that forbids it.
func (l *limitListener) admit(peer netip.Prefix) metrics.Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.count >= l.total:
		return LimitListenerConnections
	case l.perAddress > 0 && l.open[peer] >= l.perAddress:
		return LimitAddressConnections
	}
	l.count++
	l.open[peer]++
	return ""
}

func (l *limitListener) release(peer netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count--
	if l.open[peer]--; l.open[peer] == 0 {
		delete(l.open, peer)
	}
}

// sourceOf returns the peer's IPv4 address, or the /64 that an IPv6 peer can choose from.
func sourceOf(c net.Conn) netip.Prefix {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// A limitedConn gives its place back when it is closed.
type limitedConn struct {
	*net.TCPConn
	l    *limitListener
	peer netip.Prefix
	once sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { c.l.release(c.peer) })
	return err
}
