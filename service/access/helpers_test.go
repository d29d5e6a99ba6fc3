package access_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"rtcd/service/access"
	"rtcd/service/api/wire"
)

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.2")
)

var errConflict = errors.New("conflict")

// usedIDs is a small CallIDs.
type usedIDs struct {
	mu    sync.Mutex
	until map[string]time.Time
	err   error // of everything
	asked int   // calls of Used
	using func()
}

func (u *usedIDs) Use(_ context.Context, group, call string, until time.Time) error {
	if u.using != nil {
		u.using()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return u.err
	}
	if _, ok := u.until[group+"/"+call]; ok {
		return errConflict
	}
	if u.until == nil {
		u.until = make(map[string]time.Time)
	}
	u.until[group+"/"+call] = until
	return nil
}

func (u *usedIDs) Used(group, call string) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked++
	_, ok := u.until[group+"/"+call]
	return ok, u.err
}

func newService(cfg access.Config, ids *usedIDs) *access.Service {
	cfg.IsConflict = func(err error) bool { return errors.Is(err, errConflict) }
	if ids == nil {
		ids = &usedIDs{}
	}
	return access.New(cfg, ids)
}

func create(t *testing.T, s *access.Service, group string, o access.CallOptions) string {
	t.Helper()
	id, err := s.Create(t.Context(), group, o)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return id
}

func mint(t *testing.T, s *access.Service, group, call string, r access.TokenRequest) access.Token {
	t.Helper()
	if r.TTL == 0 {
		r.TTL = access.DefaultTTL
	}
	token, err := s.Mint(group, call, r)
	if err != nil {
		t.Fatalf("mint: %v", err)
	}
	return token
}

func join(call, user, session, token string) wire.Join {
	return wire.Join{CallID: call, UserID: user, SessionID: session, Token: token}
}

// refused fails the test unless err is want and nothing else.
func refused(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func admitted(t *testing.T, s *access.Service, group string, j wire.Join) access.Grant {
	t.Helper()
	g, err := s.Admit(group, here, j)
	if err != nil {
		t.Fatalf("admit %s to %s: %v", j.SessionID, j.CallID, err)
	}
	return g
}
