package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"rtcd/config"
	"rtcd/service/access"
	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/auth"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/policy"
	"rtcd/service/rtc"
	"rtcd/service/store"
)

// open builds the parts from the configuration, those that others stand on first.
func (s *Server) open(ctx context.Context, opts Options) error {
	for _, step := range []func() error{
		func() error { return s.openStore(opts.MemoryStore) },
		s.openAudit,
		s.openPolicy,
		s.openAuth,
		s.openAccess,
		s.openFeed,
		s.openReports,
		func() error { return s.openMedia(ctx, opts.Media) },
		func() error { return s.openAPI(ctx, opts) },
		s.startFeed,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
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
		s.store, s.durable = st, true
	}
	s.onClose(s.store.Close)
	s.metrics.AddSamples(storeSamples(s.store))
	s.log.Info("data store open", "path", s.cfg.Store.DataSource, "clients", s.store.Count())
	return nil
}

func (s *Server) openPolicy() (err error) {
	s.policy, err = compilePolicy(s.cfg)
	return err
}

// CheckPolicy says what of the policy of a configuration does not fit the routes and messages there
// are.
func CheckPolicy(cfg config.Config) error {
	_, err := compilePolicy(cfg)
	return err
}

// compilePolicy makes the table of who may do what.
func compilePolicy(cfg config.Config) (*policy.Table, error) {
	p := cfg.Policy
	table, err := policy.Compile(policy.Config{
		Roles: p.Roles, DefaultRole: p.DefaultRole, ClientIncludes: p.ClientIncludes, In: rules(p.In), Out: rules(p.Out),
	}, exposure(cfg).Builtin())
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return table, nil
}

// exposure is what is open to whom. An operator's listener that others than this machine reach shows
// metrics and profiles to operators alone, in production.
func exposure(cfg config.Config) api.Exposure {
	return api.Exposure{
		SelfRegistration: cfg.API.Security.AllowSelfRegistration,
		GuardStatus:      cfg.Mode.Production(),
		GuardDebug:       cfg.Mode.Production() && !isLoopback(cfg.API.Admin.ListenAddress),
	}
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func rules(list []config.Rule) []policy.Rule {
	var out []policy.Rule
	for _, r := range list {
		out = append(out, policy.Rule(r))
	}
	return out
}

func (s *Server) openAuth() error {
	sec, tls := s.cfg.API.Security, s.cfg.API.HTTP.TLS
	cfg := auth.Config{
		AuditorKey:    sec.AuditorSecretKey.Reveal(),
		TokenLifetime: sec.SessionCache.Expiration(),
		BcryptCost:    sec.BcryptCost,
		StrictIDs:     s.cfg.Mode.Production(),
		DefaultRole:   s.cfg.Policy.DefaultRole,
		BasicScope:    auth.BasicScope(sec.BasicAuthScope),
		TicketTTL:     sec.TicketTTL,
		TicketBind:    sec.TicketBind,
	}
	if sec.EnableAdmin {
		cfg.AdminKey = sec.AdminSecretKey.Reveal()
	}
	if tls.Enable && tls.ClientAuth != config.ClientAuthNone {
		prints, err := tls.Fingerprints()
		if err != nil {
			return fmt.Errorf("api.http.tls.client_fingerprints: %w", err)
		}
		cfg.CertBind, cfg.CertFingerprints = auth.CertBind(tls.ClientCertBind), prints
		cfg.RequireCert = tls.ClientAuth == config.ClientAuthRequire
	}
	a, err := auth.New(cfg, keyStore{s.store, logging.Quiet(s.log)}, logging.Quiet(s.log))
	if err != nil {
		return fmt.Errorf("set up authentication: %w", err)
	}
	if h := s.inherited; h != nil && h.state.Store != "" && h.state.Store == s.storePath() {
		a.Import(h.state.Auth)
	}
	s.auth = a
	s.onClose(func() error { a.Close(); return nil })
	return nil
}

func (s *Server) openAccess() error {
	c := s.cfg.Call
	s.access = access.New(access.Config{
		RequireJoinToken: c.RequireJoinToken, ManagedOnly: c.ManagedOnly, Linger: orNone(c.Linger), UnusedFor: c.UnusedFor,
		MaxParticipants: c.MaxParticipants, TokensPerMinute: c.TokensPerMinute,
		ManagedCallsPerClient: orNone(s.cfg.RTC.Limits.CallsPerClient),
		IsConflict:            isConflict,
		OnLimit:               func(limit string) { s.metrics.LimitHit(metrics.Limit(limit)) },
		Log:                   logging.Quiet(s.log),
	}, callIDs{s.store, s.metrics})
	if s.inherited != nil {
		s.access.Import(s.inherited.state.Access)
	}
	return nil
}

// orNone says that 0 is no time or no limit, and not the default: to package access that is less than 0.
func orNone[T int | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
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
	cfg.MaxParticipants = s.cfg.Call.MaxParticipants
	cfg.Metrics, cfg.Log = s.metrics, s.log
	cfg.Emit = func(e rtc.Event) {
		// First it is out, then the backend is told: whoever joins again at once is new.
		s.admission().left(e, s.later.soon)
		s.ws.Send(e.GroupID, e.SessionID, outbound(e))
	}
	cfg.CallEnded = s.access.CallEnded
	cfg.CallEvent = s.callEvent
	if s.reports != nil {
		cfg.CallRecord, cfg.RecordAddresses = s.reports.add, s.cfg.Report.Addresses
	}
	cfg.CallChanged = func(group string, c rtc.CallInfo) {
		s.ws.Stats(group, wire.Stats{
			CallID: c.CallID, Participants: c.Participants, Publishers: c.Publishers, Subscribers: c.Subscribers,
		})
	}
	if change != nil {
		change(&cfg)
	}
	s.out = throughOutlet(&cfg)
	s.inherit(&cfg)
	calls, err := rtc.NewServer(ctx, cfg)
	if err != nil {
		return err
	}
	s.calls = newFleet(calls, s.out, s.log)
	s.mediaUDP, s.mediaTCP = cfg.UDPAddrs, cfg.TCPAddrs
	s.openWebSockets()
	// Calls end before the WebSockets close, so that backends hear of it.
	s.onClose(s.closeCalls)
	s.onClose(func() error { s.later.stop(); return nil })
	return nil
}

func (s *Server) openWebSockets() {
	lim := s.cfg.API.Limits
	cfg := ws.Config{
		MaxMessageBytes:  int64(lim.WSMessageBytes),
		MaxConnections:   lim.WSConnectionsPerClient,
		InboundPerSecond: float64(lim.WSMessagesPerSecond),
		Current:          s.current,
		Policy:           s.policy,
		OrphanedAfter:    lim.OrphanedAfter,
		Orphaned:         s.orphaned,
	}
	if s.audit != nil {
		cfg.Record = s.recordMessage
	}
	s.ws = ws.New(cfg, s.admission(), s.metrics, s.log)
	s.onClose(func() error {
		if s.handing {
			return s.partFromBackends()
		}
		ctx, cancel := s.stopping()
		defer cancel()
		return s.cutOff("websockets", s.ws.Close(ctx))
	})
	if s.inherited != nil {
		s.ws.Import(s.inherited.state.Parked)
	}
}

// orphaned ends the sessions of a client that has been away for too long: nobody speaks for them.
func (s *Server) orphaned(clientID string) {
	s.log.Warn("sessions end, as their backend has not been connected", "clientID", clientID,
		"for", s.cfg.API.Limits.OrphanedAfter, "setting", "api.limits.orphaned_after")
	s.calls.EndOrphans(clientID)
}

// current says whether the credentials that a connection was opened with are still good, and what
// its client may now.
func (s *Server) current(p ws.Peer) (policy.Roles, bool) {
	c, err := s.store.Get(p.ClientID)
	if err != nil || p.Epoch < c.Epoch {
		return policy.Roles{}, false
	}
	set, _ := s.policy.Set(rolesOf(c.Roles, s.policy.DefaultRole()))
	return set, true
}

func (s *Server) admission() admission { return admission{s.calls, s.access, s.audit.Ready} }

func (s *Server) openAPI(ctx context.Context, opts Options) error {
	s.load = api.StartLoad()
	s.onClose(func() error { s.load.Stop(); return nil })
	s.drain = newDrainer(s.calls, s.load, s.cfg.Shutdown.DrainDeadline, s.audit, s.log)
	s.metrics.SetDrain(func() (bool, int) { st := s.drain.DrainState(); return st.Draining, st.Sessions })
	sec := s.cfg.API.Security
	proxies, err := config.Prefixes(s.cfg.API.HTTP.TrustedProxies)
	if err != nil {
		return fmt.Errorf("api.http.trusted_proxies: %w", err)
	}
	nets, err := config.Prefixes(sec.RegistrationCIDRs)
	if err != nil {
		return fmt.Errorf("api.security.registration_cidrs: %w", err)
	}
	deps := s.deps()
	handler := api.New(api.Config{
		AllowSelfRegistration: sec.AllowSelfRegistration,
		EnableAdmin:           sec.EnableAdmin,
		Production:            s.cfg.Mode.Production(),
		RequireTLS:            sec.RequireTLS,
		TrustedProxies:        proxies,
		RegistrationToken:     sec.RegistrationToken.Reveal(),
		RegistrationNets:      nets,
		Build:                 opts.Build,
	}, deps)
	public := publicConfig(s.cfg)
	if public.Listener, err = s.listener(public.Address); err != nil {
		return err
	}
	if s.public, err = api.Listen(ctx, public, handler, s.metrics, s.log); err != nil {
		return err
	}
	s.onClose(s.shutdown(s.public))
	return s.openAdmin(ctx, deps, proxies, opts.AdminOptional)
}

// deps are the parts that both listeners stand on.
func (s *Server) deps() api.Deps {
	who := authenticator{s.auth, s.policy, s.metrics}
	calls := managed{s.admission()}
	accounts := &tenants{
		auth: s.auth, store: s.store, access: s.access, ws: s.ws, calls: s.calls, policy: s.policy, feed: s.feed, reports: s.reports,
		metrics: s.metrics, log: s.log, refusal: who.refusal, later: &s.later,
	}
	deps := api.Deps{
		Auth: who, Tokens: who, Remover: accounts, Tenants: accounts,
		Calls: calls, Overview: calls, Managed: calls, Moderator: calls,
		WebSockets: sockets{s.ws},
		Probes:     s.openProbes(),
		Load:       s.load,
		Drainer:    s.drain,
		Status:     &statuser{s: s},
		Ready:      s.ready,
		Policy:     s.policy,
		Feed:       s.feed,
		Current:    s.stillGood,
		Metrics:    s.metrics,
		Log:        s.log,
	}
	if s.durable {
		deps.Backup = backup{s.store}
	}
	if s.reports != nil {
		deps.Reports = s.reports
	}
	if s.audit != nil {
		deps.Recorder, deps.AuditLog = s.audit, s.audit
	}
	return deps
}

// ready says why the server takes no new calls.
func (s *Server) ready() error {
	if s.calls.Draining() {
		return api.Refuse(http.StatusServiceUnavailable, "draining", rtc.ErrDraining)
	}
	return nil
}

// openAdmin opens the listener for the operator.
func (s *Server) openAdmin(ctx context.Context, deps api.Deps, proxies []netip.Prefix, optional bool) error {
	addr := s.cfg.API.Admin.ListenAddress
	if addr == "" {
		return nil
	}
	nets, err := config.Prefixes(s.cfg.API.Admin.AllowedCIDRs)
	if err != nil {
		return fmt.Errorf("api.admin.allowed_cidrs: %w", err)
	}
	host, _, _ := net.SplitHostPort(addr)
	handler := api.NewAdmin(api.AdminConfig{
		Hosts: []string{host}, AllowedNets: nets, TrustedProxies: proxies, Exposure: exposure(s.cfg),
		RequireTLS: s.cfg.API.Security.RequireTLS,
	}, deps)
	listen := adminConfig(s.cfg)
	if listen.Listener, err = s.listener(listen.Address); err != nil {
		return err
	}
	admin, err := api.Listen(ctx, listen, handler, s.metrics, s.log)
	if err != nil {
		if optional {
			s.log.Warn("no admin listener: its default address is taken", "address", addr, "err", err)
			return nil
		}
		return fmt.Errorf("api.admin.listen_address %s: %w", addr, err)
	}
	s.admin = admin
	s.onClose(s.shutdown(admin))
	return nil
}

func (s *Server) shutdown(srv *api.Server) func() error {
	return func() error {
		ctx, cancel := s.stopping()
		defer cancel()
		return s.cutOff(srv.Addr().String(), srv.Shutdown(ctx))
	}
}

// cutOff takes a stop that ran out of time for what it is: some peer did not take or finish what it
// had begun, and was cut off. That is no fault of this server.
func (s *Server) cutOff(what string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("peers that were too slow to stop were cut off", "listener", what)
		return nil
	}
	return err
}
