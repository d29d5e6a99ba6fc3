// Package service builds the server from its parts, runs it, drains it and stops it.
package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"rtcd/config"
	"rtcd/service/access"
	"rtcd/service/api"
	"rtcd/service/api/ws"
	"rtcd/service/audit"
	"rtcd/service/auth"
	"rtcd/service/feed"
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
	audit   *audit.Recorder // nil without one
	feed    *feed.Feed
	policy  *policy.Table
	auth    *auth.Service
	access  *access.Service
	calls   *rtc.Server
	ws      *ws.Server
	load    *api.Load
	public  *api.Server
	admin   *api.Server // nil without one
	later   later
	durable bool // the store is one that can be backed up
	closers []func() error

	mediaUDP, mediaTCP []netip.AddrPort // that media listens on
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
	s.metrics.SetBuild(cmp.Or(opts.Build.Version, api.DefaultVersion), opts.Build.Hash)
	s.log.Info("starting", "buildVersion", opts.Build.Version, "buildHash", opts.Build.Hash, "mode", string(cfg.Mode))
	if err := s.open(ctx, opts); err != nil {
		return nil, err
	}
	s.Listeners().Log(s.log)
	s.checkUp(ctx, opts)
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
