// Package service builds the server from its parts, runs it, drains it and stops it.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/api/ws"
	"rtcd/service/auth"
	"rtcd/service/metrics"
	"rtcd/service/policy"
	"rtcd/service/rtc"
	"rtcd/service/store"
)

// stopTime bounds how long requests in flight may take once the server stops.
const stopTime = 10 * time.Second

// Options are what does not come from the configuration.
type Options struct {
	Build api.Build
	Log   *slog.Logger // nil: discard

	// AdminOptional lets the server start without its admin listener when the address is taken:
	// for a default address that nobody asked for.
	AdminOptional bool

	// MemoryStore keeps clients in memory only, and Media changes the media configuration: for tests.
	MemoryStore bool
	Media       func(*rtc.Config)
}

// Server is a whole rtcd.
type Server struct {
	cfg     config.Config
	log     *slog.Logger
	metrics *metrics.Metrics
	store   *store.Store
	auth    *auth.Service
	calls   *rtc.Server
	ws      *ws.Server
	load    *api.Load
	public  *api.Server
	admin   *api.Server // nil without one
	closers []func() error
}

// New builds a server and opens everything it listens on; Run serves. If it fails, nothing is
// left open.
func New(ctx context.Context, cfg config.Config, opts Options) (_ *Server, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: opts.Log, metrics: metrics.New()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.log.Info("starting", "buildVersion", opts.Build.Version, "buildHash", opts.Build.Hash, "mode", string(cfg.Mode))
	if err := s.openStore(opts.MemoryStore); err != nil {
		return nil, err
	}
	if err := s.openAuth(); err != nil {
		return nil, err
	}
	if err := s.openMedia(ctx, opts.Media); err != nil {
		return nil, err
	}
	if err := s.openAPI(ctx, opts); err != nil {
		return nil, err
	}
	return s, nil
}

// onClose notes what closes last opened first.
func (s *Server) onClose(f func() error) { s.closers = append(s.closers, f) }

func (s *Server) close() error {
	var err error
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	s.closers = nil
	return err
}

func (s *Server) openStore(memory bool) error {
	if memory {
		s.store = store.OpenMemory()
	} else {
		st, err := store.Open(store.Config{
			Dir:          s.cfg.Store.DataSource,
			MinFreeBytes: uint64(s.cfg.Store.MinFreeMiB) << 20,
			MaxClients:   s.cfg.Store.MaxClients,
		}, s.log)
		if err != nil {
			return fmt.Errorf("open store %s: %w", s.cfg.Store.DataSource, err)
		}
		s.store = st
	}
	s.onClose(s.store.Close)
	s.log.Info("data store open", "path", s.cfg.Store.DataSource, "clients", s.store.Count())
	return nil
}

func (s *Server) openAuth() error {
	sec := s.cfg.API.Security
	cfg := auth.Config{
		TokenLifetime: sec.SessionCache.Expiration(),
		BcryptCost:    sec.BcryptCost,
		StrictIDs:     s.cfg.Mode == config.ModeProduction,
	}
	if sec.EnableAdmin {
		cfg.AdminKey = sec.AdminSecretKey.Reveal()
	}
	a, err := auth.New(cfg, keyStore{s.store, s.log}, s.log)
	if err != nil {
		return fmt.Errorf("set up authentication: %w", err)
	}
	s.auth = a
	s.onClose(func() error { a.Close(); return nil })
	return nil
}

func (s *Server) openMedia(ctx context.Context, change func(*rtc.Config)) error {
	cfg, err := mediaConfig(s.cfg.RTC)
	if err != nil {
		return err
	}
	for _, i := range s.cfg.RTC.ICEServers {
		if i.IsTURN() {
			s.log.Warn("rtc.ice_servers: TURN entries are not used, the server makes no relay candidates", "urls", i.URLs)
		}
	}
	cfg.Metrics, cfg.Log = s.metrics, s.log
	cfg.Emit = func(e rtc.Event) { s.ws.Send(e.GroupID, e.SessionID, outbound(e)) }
	if change != nil {
		change(&cfg)
	}
	if s.calls, err = rtc.NewServer(ctx, cfg); err != nil {
		return err
	}
	lim := s.cfg.API.Limits
	s.ws = ws.New(ws.Config{
		MaxMessageBytes:  int64(lim.WSMessageBytes),
		MaxConnections:   lim.WSConnectionsPerClient,
		InboundPerSecond: float64(lim.WSMessagesPerSecond),
		Current: func(p ws.Peer) (policy.Roles, bool) {
			_, err := s.store.Get(p.ClientID)
			return p.Roles, err == nil
		},
	}, wsCalls{s.calls}, s.metrics, s.log)
	// Calls end before the WebSockets close, so that backends hear of it.
	s.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		return s.cutOff("websockets", s.ws.Close(ctx))
	})
	s.onClose(s.calls.Close)
	for _, a := range cfg.UDPAddrs {
		s.log.Info("media listening", "network", "udp", "address", a.String())
	}
	for _, a := range cfg.TCPAddrs {
		s.log.Info("media listening", "network", "tcp", "address", a.String())
	}
	return nil
}

func (s *Server) openAPI(ctx context.Context, opts Options) error {
	s.load = api.StartLoad()
	s.onClose(func() error { s.load.Stop(); return nil })
	sec := s.cfg.API.Security
	table, err := policy.Compile(policy.Config{}, api.Exposure{SelfRegistration: sec.AllowSelfRegistration}.Builtin())
	if err != nil {
		return err
	}
	access := authenticator{s.auth, table, s.metrics}
	handler := api.New(api.Config{
		AllowSelfRegistration: sec.AllowSelfRegistration,
		EnableAdmin:           sec.EnableAdmin,
		Production:            s.cfg.Mode == config.ModeProduction,
		Build:                 opts.Build,
	}, api.Deps{
		Auth:       access,
		Remover:    remover{access, s.ws, s.calls},
		Calls:      sessions{s.calls},
		WebSockets: sockets{s.ws},
		Load:       s.load,
		Policy:     table,
		Metrics:    s.metrics,
		Log:        s.log,
	})
	perIP := s.cfg.API.Limits.ConnectionsPerIP
	if perIP == 0 {
		perIP = -1 // off
	}
	cfg := api.ServerConfig{
		Address:                  s.cfg.API.HTTP.ListenAddress,
		MaxConnections:           s.cfg.API.Limits.Connections,
		MaxConnectionsPerAddress: perIP,
	}
	if tls := s.cfg.API.HTTP.TLS; tls.Enable {
		cfg.CertFile, cfg.KeyFile = tls.CertFile, tls.CertKey
	}
	if s.public, err = api.Listen(ctx, cfg, handler, s.metrics, s.log); err != nil {
		return err
	}
	s.onClose(s.shutdown(s.public))
	s.log.Info("api listening", "address", s.public.Addr().String(), "tls", cfg.CertFile != "")
	return s.openAdmin(ctx, opts.AdminOptional)
}

// openAdmin opens the listener for profiling and metrics.
func (s *Server) openAdmin(ctx context.Context, optional bool) error {
	addr := s.cfg.API.Admin.ListenAddress
	if addr == "" {
		return nil
	}
	host, _, _ := net.SplitHostPort(addr)
	handler := api.NewAdmin(api.AdminConfig{Hosts: []string{host}}, api.Deps{Metrics: s.metrics, Log: s.log})
	admin, err := api.Listen(ctx, api.ServerConfig{Address: addr}, handler, s.metrics, s.log)
	if err != nil {
		if optional {
			s.log.Warn("no admin listener: its default address is taken", "address", addr, "err", err)
			return nil
		}
		return fmt.Errorf("api.admin.listen_address %s: %w", addr, err)
	}
	s.admin = admin
	s.onClose(s.shutdown(admin))
	s.log.Info("admin listening", "address", admin.Addr().String())
	return nil
}

func (s *Server) shutdown(srv *api.Server) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		return s.cutOff(srv.Addr().String(), srv.Shutdown(ctx))
	}
}

// cutOff takes a stop that ran out of time for what it is: some peer did not take or finish what it
// had begun, and was cut off. That is no fault of this server.
func (s *Server) cutOff(what string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("peers that were too slow to stop were cut off", "listener", what, "after", stopTime)
		return nil
	}
	return err
}

// Addr is the address of the API.
func (s *Server) Addr() net.Addr { return s.public.Addr() }

// Run serves until ctx is done, then drains: running calls go on, new calls are refused, until
// the last session has ended or the deadline has come. Then it stops everything. A listener that
// fails ends it too.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	serve := func(srv *api.Server) {
		go func() { failed <- srv.Serve() }()
	}
	running := 1
	serve(s.public)
	if s.admin != nil {
		running++
		serve(s.admin)
	}
	var err error
	select {
	case err = <-failed:
		running--
		s.log.Error("listener failed", "err", err)
	case <-ctx.Done():
		err = s.drain(failed)
	}
	// Calls end first: backends hear of it at once, however long a request in flight takes.
	err = errors.Join(err, s.calls.Close(), s.close())
	for ; running > 0; running-- {
		<-failed
	}
	s.log.Info("stopped")
	return err
}

// drain waits for the last session to end.
func (s *Server) drain(failed chan error) error {
	idle := s.calls.Drain()
	s.log.Info("draining", "sessions", s.calls.Count(), "deadline", s.cfg.Shutdown.DrainDeadline)
	var deadline <-chan time.Time
	if d := s.cfg.Shutdown.DrainDeadline; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		deadline = t.C
	}
	select {
	case <-idle:
	case <-deadline:
		s.log.Warn("drain deadline reached", "sessions", s.calls.Count())
	case err := <-failed:
		failed <- err // for Run, which counts them
		return err
	}
	return nil
}
