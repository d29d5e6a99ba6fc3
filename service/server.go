// Package service builds the server from its parts, runs it, drains it and stops it.
package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/config"
	"rtcd/service/access"
	"rtcd/service/api"
	"rtcd/service/api/ws"
	"rtcd/service/audit"
	"rtcd/service/auth"
	"rtcd/service/feed"
	"rtcd/service/handover"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/policy"
	"rtcd/service/rtc"
	"rtcd/service/store"
)

// Options are what does not come from the configuration.
type Options struct {
	Build api.Build
	Log   *slog.Logger // nil: discard

	LogTargets []logging.Target // of Log, whose losses are shown

	// AdminOptional lets the server start without its admin listener when the address is taken:
	// for a default address that nobody asked for.
	AdminOptional bool

	// MemoryStore keeps clients in memory only, and Media changes the media configuration: for tests.
	MemoryStore bool
	Media       func(*rtc.Config)

	inherited *inheritance // nil: asked for at upgrade.socket
}

// Server is a whole rtcd.
type Server struct {
	cfg      config.Config
	log      *slog.Logger
	metrics  *metrics.Metrics
	store    *store.Store
	audit    *audit.Recorder // nil without one
	feed     *feed.Feed
	reports  *reports // nil without them
	policy   *policy.Table
	auth     *auth.Service
	access   *access.Service
	calls    *fleet
	out      *outlet // of calls
	ws       *ws.Server
	load     *api.Load
	drain    *drainer
	public   *api.Server
	admin    *api.Server // nil without one
	later    later
	started  time.Time
	build    api.Build
	findings []api.FindingStatus // of the look at this machine at the start
	durable  bool                // the store is one that can be backed up
	closers  []func() error
	ending   context.Context // done when peers have had their time to finish; nil before the end

	mediaUDP, mediaTCP []netip.AddrPort // that media listens on

	// Of upgrades.
	opts       Options
	inherited  *inheritance // nil: nothing was taken over
	succession *succession  // nil: nobody can take over
	handing    bool         // being closed for a successor
	left       []ws.Parked  // by the backends, then
	parted     []*handover.Conn
	again      atomic.Pointer[Server] // in its place after a successor failed; nil: none
}

// New builds a server and opens everything it listens on; Run serves. If it fails, nothing is
// left open.
func New(ctx context.Context, cfg config.Config, opts Options) (_ *Server, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, opts: opts, log: opts.Log, metrics: metrics.New(), started: time.Now(), build: opts.Build, inherited: opts.inherited}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			if s.inherited != nil {
				s.inherited.abandon()
			}
		}
	}()
	for _, t := range opts.LogTargets {
		s.metrics.AddLogTarget(t.Name, t.Lost)
	}
	s.metrics.SetBuild(cmp.Or(opts.Build.Version, api.DefaultVersion), opts.Build.Hash)
	s.log.Info("starting", "buildVersion", opts.Build.Version, "buildHash", opts.Build.Hash, "mode", string(cfg.Mode))
	if s.inherited == nil {
		if s.inherited, err = s.takeOver(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.open(ctx, opts); err != nil {
		return nil, err
	}
	if err := s.succeed(ctx); err != nil {
		return nil, err
	}
	s.openUpgrade()
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
// the last call has ended or the deadline has come. An operator can make it drain and end as well.
// Then it stops everything. A listener that fails ends it too.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 3)
	var serving sync.WaitGroup
	for _, srv := range []*api.Server{s.public, s.admin} {
		if srv != nil {
			serving.Go(func() { failed <- srv.Serve() })
		}
	}
	s.awaitSuccessor(failed)
	patience, err := s.drain.wait(ctx, failed)
	if errors.Is(err, errSucceeded) {
		return s.giveWay(ctx, &serving)
	}
	if err != nil {
		s.log.Error("listener failed", "err", err)
	}
	err = errors.Join(err, s.end(s.drain.stop(patience), &serving))
	s.log.Info("stopped")
	return err
}

// Halt ends the server at once: sessions are cut, and their backends told if they take it within
// a moment. Run returns soon after.
func (s *Server) Halt() {
	s.drain.Halt()
	if again := s.again.Load(); again != nil {
		again.Halt()
	}
}

// end closes everything. Peers have so long to finish what they have begun; what has not ended soon
// after is left behind.
func (s *Server) end(patience time.Duration, serving *sync.WaitGroup) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.ending = ctx
	closed := make(chan error, 1)
	go func() {
		// Calls end first: backends hear of it at once, however long a request in flight takes.
		err := errors.Join(s.calls.Close(), s.close())
		serving.Wait()
		closed <- err
	}()
	halt := s.drain.halt
	if patience == haltTime {
		halt = nil
	}
	var stuck <-chan time.Time
	for timeout := ctx.Done(); ; {
		select {
		case err := <-closed:
			return err
		case <-halt:
			halt, patience = nil, haltTime
			time.AfterFunc(haltTime, cancel)
		case <-timeout:
			timeout, stuck = nil, time.After(min(patience, closeTime))
		case <-stuck:
			s.log.Error("stopped", "err", errStuck)
			return errStuck
		}
	}
}

// stopping is done when peers have had their time to finish what they have begun.
func (s *Server) stopping() (context.Context, context.CancelFunc) {
	if s.ending != nil {
		return context.WithCancel(s.ending)
	}
	return context.WithTimeout(context.Background(), stopTime)
}
