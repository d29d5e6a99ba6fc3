package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/audit"
	"rtcd/service/metrics"
)

// Accounts is the data store of a server that does not run, for its operator.
type Accounts struct{ s *Server }

// OpenAccounts opens the data store of the configuration. It fails with an error that wraps
// store.ErrLocked while a server runs on it.
func OpenAccounts(cfg config.Config) (*Accounts, error) {
	s := &Server{cfg: cfg, log: slog.New(slog.DiscardHandler), metrics: metrics.New()}
	if err := s.openStore(false); err != nil {
		return nil, err
	}
	if err := s.openAuth(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.openAudit(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &Accounts{s}, nil
}

// record puts a change on record, if there is one kept, and hands its error on.
func (a *Accounts) record(kind string, action audit.Action, id string, err error) error {
	e := audit.Event{
		Type: kind, Action: action, Actor: audit.Actor{Kind: audit.Operator, ID: "command line"},
		Object: audit.Object{Kind: "client", ID: id},
	}
	if err != nil {
		e.Outcome, e.Reason = audit.MinorFailure, "refused"
	}
	a.s.audit.Record(e)
	return err
}

// Close closes the data store.
func (a *Accounts) Close() error { return a.s.close() }

// Add adds a client; without roles (nil) it gets the default role.
func (a *Accounts) Add(ctx context.Context, id, key string, roles []string) error {
	return a.record("client.add", audit.Create, id, a.s.auth.Add(ctx, id, key, roles))
}

// List returns up to limit clients whose ids come after after, by id.
func (a *Accounts) List(_ context.Context, after string, limit int) ([]api.Tenant, error) {
	clients, err := a.s.store.List(after, limit)
	if err := a.record("client.list", audit.Read, "", err); err != nil {
		return nil, err
	}
	return tenantsOf(clients, a.s.cfg.Policy.DefaultRole), nil
}

// SetRoles gives a client other roles; an empty list takes all away, nil brings the default back.
func (a *Accounts) SetRoles(ctx context.Context, id string, roles []string) error {
	return a.record("client.roles", audit.Update, id, a.s.auth.SetRoles(ctx, id, roles))
}

// Rotate replaces a client's key. Nothing is connected, so there is nothing to grant grace to.
func (a *Accounts) Rotate(ctx context.Context, id, key string, _ time.Duration) error {
	_, err := a.s.auth.Rotate(ctx, id, key)
	return a.record("client.rotate", audit.Update, id, err)
}

// Revoke leaves a client without a key until Rotate.
func (a *Accounts) Revoke(ctx context.Context, id string) error {
	_, err := a.s.auth.Revoke(ctx, id)
	return a.record("client.revoke", audit.Update, id, err)
}

// Remove removes a client.
func (a *Accounts) Remove(ctx context.Context, id string) error {
	return a.record("client.remove", audit.Delete, id, a.s.auth.Unregister(ctx, id))
}
