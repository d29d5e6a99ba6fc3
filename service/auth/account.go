package auth

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"rtcd/service/policy"
)

// maxRoles bounds the roles of an account.
const maxRoles = 16

// An Account is what the store knows of a client.
type Account struct {
	// Hash is the bcrypt hash of the key.
	Hash []byte
	// Roles are what an operator gave the client; nil means that nobody did.
	Roles []string
	// Epoch is that of the credentials that are alive: those made with a smaller one are dead. It is
	// larger for a client registered anew than it ever was for one of the same id.
	Epoch uint64
	// Revoked says that no key belongs to Hash.
	Revoked bool
}

// CheckRoles returns ErrRoleReserved or ErrRoleInvalid unless a client can have these roles: at most 16,
// each once, of 1 to 32 characters of a-z, 0-9, '.', '_' and '-'.
func CheckRoles(roles []string) error {
	if len(roles) > maxRoles {
		return fmt.Errorf("%w: %d roles, at most %d", ErrRoleInvalid, len(roles), maxRoles)
	}
	for i, role := range roles {
		switch {
		case policy.Reserved(role):
			return fmt.Errorf("%w: %s", ErrRoleReserved, role)
		case !policy.ValidRole(role):
			return ErrRoleInvalid
		case slices.Contains(roles[:i], role):
			return fmt.Errorf("%w: %s is there twice", ErrRoleInvalid, role)
		}
	}
	return nil
}

// roles returns those of an account. They are the caller's to read, not to change.
func (s *Service) roles(a Account) []string {
	if a.Roles == nil {
		return s.unassigned
	}
	return a.Roles
}

// Add adds a client as Register does, with roles. nil stands for the default role.
func (s *Service) Add(ctx context.Context, clientID, authKey string, roles []string) error {
	if err := CheckRoles(roles); err != nil {
		return fmt.Errorf("registration failed: %w", err)
	}
	if err := s.register(ctx, clientID, authKey, roles); err != nil {
		return fmt.Errorf("registration failed: %w", err)
	}
	return nil
}

// Rotate replaces a client's key. When it returns, the former key, token and tickets are dead, also for
// requests that began before, and the returned epoch is that of what comes after. What is connected stays
// so: that is for the caller to end. Errors: ErrKeyShort, ErrKeyLong, ErrUnknownClient, *LimitError, those
// of the store and ctx's; the former key is then still what it was.
func (s *Service) Rotate(ctx context.Context, clientID, newKey string) (epoch uint64, err error) {
	return s.RotateFrom(ctx, clientID, newKey, 0)
}

// RotateFrom is Rotate for who has shown credentials of an epoch: it fails with ErrAuthentication if that
// is over, so that of those who know a key nobody replaces the one that came after it. 0 is any epoch.
func (s *Service) RotateFrom(ctx context.Context, clientID, newKey string, from uint64) (epoch uint64, err error) {
	if epoch, err = s.rotate(ctx, clientID, newKey, from); err != nil {
		return 0, fmt.Errorf("rotation failed: %w", err)
	}
	return epoch, nil
}

func (s *Service) rotate(ctx context.Context, clientID, newKey string, from uint64) (uint64, error) {
	if err := checkKey(newKey); err != nil {
		return 0, err
	}
	// An id that is not there costs no bcrypt.
	if _, found, err := s.store.Account(ctx, clientID); err != nil {
		return 0, err
	} else if !found {
		return 0, ErrUnknownClient
	}
	// Not that of registrations, which may come from anybody.
	hash, err := s.newHash(ctx, s.rotations, newKey)
	if err != nil {
		return 0, err
	}
	return s.supersede(ctx, clientID, hash, false, from)
}

// Revoke leaves a client without a key until Rotate gives it one. When it returns, its key, token and
// tickets are dead. What is connected stays so: that is for the caller to end.
func (s *Service) Revoke(ctx context.Context, clientID string) (epoch uint64, err error) {
	// A hash that no key has: also a server that does not know of revocation refuses all of them.
	if epoch, err = s.supersede(ctx, clientID, s.hasher.unmatched(), true, 0); err != nil {
		return 0, fmt.Errorf("revocation failed: %w", err)
	}
	return epoch, nil
}

// supersede begins a new epoch of a client. Credentials of the former one are refused as soon as the store
// has the new one; what is held in memory of them goes too. It has to be the epoch from, unless that is 0.
func (s *Service) supersede(ctx context.Context, clientID string, hash []byte, revoked bool, from uint64) (epoch uint64, err error) {
	found, err := s.store.Change(ctx, clientID, func(a *Account) error {
		if from != 0 && a.Epoch != from {
			return ErrAuthentication
		}
		a.Epoch++
		a.Hash, a.Revoked = hash, revoked
		epoch = a.Epoch
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 0, ErrUnknownClient
	}
	s.forget(clientID)
	return epoch, nil
}

// forget drops what is held in memory of a client's credentials.
func (s *Service) forget(clientID string) {
	s.tokens.revokeClient(clientID)
	s.tickets.revokeClient(clientID)
	s.verified.forget(clientID)
}

// SetRoles gives a client other roles; an empty list takes all away, nil brings the default back. Requests
// from now on have them, with whatever credentials; connections are for the caller to tell. Errors:
// ErrRoleReserved, ErrRoleInvalid, ErrUnknownClient, those of the store and ctx's.
func (s *Service) SetRoles(ctx context.Context, clientID string, roles []string) error {
	err := CheckRoles(roles)
	if err == nil {
		var found bool
		found, err = s.store.Change(ctx, clientID, func(a *Account) error {
			a.Roles = slices.Clone(roles)
			return nil
		})
		if err == nil && !found {
			err = ErrUnknownClient
		}
	}
	if err != nil {
		return fmt.Errorf("set roles: %w", err)
	}
	return nil
}

// newHash is bcrypt of a new key, within a budget.
func (s *Service) newHash(ctx context.Context, b *budget, key string) ([]byte, error) {
	if err := b.acquire(ctx, netip.Prefix{}); err != nil {
		return nil, err
	}
	defer b.release()
	return s.hasher.hash(key)
}

func checkKey(key string) error {
	switch {
	case len(key) < minKeyBytes:
		return ErrKeyShort
	case len(key) > maxKeyBytes:
		return ErrKeyLong
	}
	return nil
}
