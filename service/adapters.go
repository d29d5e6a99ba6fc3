package service

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/auth"
	"rtcd/service/metrics"
	"rtcd/service/policy"
	"rtcd/service/rtc"
	"rtcd/service/store"
)

// keyStore shows the store to package auth.
type keyStore struct {
	*store.Store
	log *slog.Logger
}

func (k keyStore) Account(_ context.Context, id string) (auth.Account, bool, error) {
	c, err := k.Get(id)
	if errors.Is(err, store.ErrNotFound) {
		return auth.Account{}, false, nil
	}
	return accountOf(c), err == nil, k.fault(err)
}

func accountOf(c store.Client) auth.Account {
	return auth.Account{Hash: c.Hash, Roles: c.Roles, Epoch: c.Epoch, Revoked: c.Revoked}
}

func (k keyStore) Add(ctx context.Context, id string, hash []byte, roles []string) (bool, error) {
	err := k.Insert(ctx, store.Client{ID: id, Hash: hash, Roles: roles, Created: time.Now()})
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, k.fault(err)
}

func (k keyStore) Change(ctx context.Context, id string, change func(*auth.Account) error) (bool, error) {
	var refused error
	err := k.Update(ctx, id, func(c *store.Client) error {
		a := accountOf(*c)
		refused = change(&a)
		c.Hash, c.Roles, c.Epoch, c.Revoked = a.Hash, a.Roles, a.Epoch, a.Revoked
		return refused
	})
	switch {
	case refused != nil:
		return true, refused
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	}
	return err == nil, k.fault(err)
}

func (k keyStore) Replace(ctx context.Context, id string, old, hash []byte) (bool, error) {
	err := k.UpdateHash(ctx, id, old, hash)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, k.fault(err)
}

func (k keyStore) Remove(ctx context.Context, id string) (bool, error) {
	err := k.Delete(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, k.fault(err)
}

// fault says what an error of the store is to package auth. What went wrong is for the log: the
// peer, who may be anybody, is not told of paths and disks.
func (k keyStore) fault(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, store.ErrFull):
		return auth.ErrFull
	default:
		k.log.Error("data store cannot do it", "err", err)
		return auth.ErrUnavailable
	}
}

// authenticator shows package auth to the API: the same errors, in the form the API asks for. It
// counts the limits that were hit.
type authenticator struct {
	*auth.Service
	policy  *policy.Table
	metrics *metrics.Metrics
}

func (a authenticator) Authenticate(ctx context.Context, c api.Credentials) (api.Principal, error) {
	p, err := a.Service.Authenticate(ctx, auth.Credentials(c))
	if err != nil {
		return api.Principal{}, a.refusal(err)
	}
	hold := func() func() { return a.Hold(p) }
	roles, _ := a.policy.Set(p.Roles)
	switch {
	case p.Admin:
		roles = a.policy.Admin()
	case p.Auditor:
		roles = a.policy.Auditor()
	}
	return api.Principal{
		ClientID: p.ClientID, Admin: p.Admin, Auditor: p.Auditor, Roles: roles, Epoch: p.Epoch, Hold: hold,
	}, nil
}

func (a authenticator) Register(ctx context.Context, id, key string) error {
	return a.refusal(a.Service.Register(ctx, id, key))
}

func (a authenticator) Login(ctx context.Context, id, key string, from api.Credentials) (string, error) {
	token, err := a.Service.Login(ctx, id, key, auth.Credentials(from))
	return token, a.refusal(err)
}

// Refresh exchanges a live token for a new one.
func (a authenticator) Refresh(ctx context.Context, token string) (string, time.Time, error) {
	token, expires, err := a.Service.Refresh(ctx, token)
	return token, expires, a.refusal(err)
}

// Ticket makes a ticket for the client that asks, to be used from where it asks.
func (a authenticator) Ticket(ctx context.Context, p api.Principal, from api.Credentials) (string, time.Time, error) {
	bind := auth.Binding{Addr: from.Remote}
	if from.Certificate != nil {
		bind.CertSHA256 = sha256.Sum256(from.Certificate.Raw)
	}
	ticket, expires, err := a.NewTicket(ctx, auth.Principal{ClientID: p.ClientID, Epoch: p.Epoch}, bind)
	return ticket, expires, a.refusal(err)
}

// backup shows the store to the API.
type backup struct{ *store.Store }

func (b backup) Backup(ctx context.Context, w io.Writer) error {
	_, err := b.Store.Backup(ctx, w)
	return err
}

// sockets shows the WebSocket server to the API.
type sockets struct{ *ws.Server }

func (s sockets) Serve(w http.ResponseWriter, r *http.Request, p api.Peer) {
	s.Server.Serve(w, r, ws.Peer{ClientID: p.ClientID, Epoch: p.Epoch, Roles: p.Roles, Remote: p.Remote})
}

// busy is an error after which it is worth trying again.
type busy struct {
	error
	after time.Duration
}

func (b busy) RetryAfter() time.Duration { return b.after }
func (b busy) Unwrap() error             { return b.error }

// unavailable is an error of the store, not of the request.
type unavailable struct{ error }

func (unavailable) Unavailable() bool { return true }
func (u unavailable) Unwrap() error   { return u.error }

// limitClients is how many backends may be registered.
const limitClients metrics.Limit = "registered_clients"

// refusal gives an error of package auth the methods that the API looks for.
func (a authenticator) refusal(err error) error {
	var limit *auth.LimitError
	switch {
	case errors.As(err, &limit):
		a.metrics.LimitHit(metrics.Limit(limit.Limit))
		return busy{err, limit.RetryAfter}
	case errors.Is(err, auth.ErrFull):
		a.metrics.LimitHit(limitClients)
		return unavailable{err}
	case errors.Is(err, auth.ErrUnavailable):
		return unavailable{err}
	}
	return err
}

// outbound is a session's event as its backend is told it.
func outbound(e rtc.Event) ws.Outbound {
	switch e.Kind {
	case rtc.Closed:
		return ws.Outbound{Kind: ws.Close}
	case rtc.Voice:
		return ws.Outbound{Kind: ws.VAD, Signal: signalOf(e)}
	default:
		return ws.Outbound{Kind: ws.RTC, Signal: signalOf(e)}
	}
}

func signalOf(e rtc.Event) wire.Signal {
	return wire.Signal{
		GroupID: e.GroupID, UserID: e.UserID, SessionID: e.SessionID, CallID: e.CallID,
		Type: e.Type, Data: e.Data,
	}
}
