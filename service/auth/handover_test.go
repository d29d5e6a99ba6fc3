package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// TestWhoTakesOverKnowsKeys: keys and tokens that were right are right for the process that takes over,
// without a hash, for as long as they would have been; what has been changed meanwhile is not.
func TestWhoTakesOverKnowsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		cfg := Config{BcryptCost: bcrypt.MinCost, TokenLifetime: time.Minute}
		old := newService(cfg, store, nil)
		defer old.Close()
		mustRegister(t, old, "here", "rotated", "stranger")
		come := func(s *Service, id, key string) error {
			_, err := s.Authenticate(t.Context(), header(basic(id, key), here))
			return err
		}
		for _, id := range []string{"here", "rotated"} {
			if err := come(old, id, key); err != nil {
				t.Fatal(err)
			}
		}
		token := mustLogin(t, old, "here")
		if err := come(old, "here", otherKey); !errors.Is(err, ErrAuthentication) {
			t.Fatal(err)
		}

		said, err := json.Marshal(old.Export())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{key, otherKey, token} {
			if bytes.Contains(said, []byte(secret)) {
				t.Errorf("%s is in what is handed over", secret)
			}
		}
		var st State
		if err := json.Unmarshal(said, &st); err != nil {
			t.Fatal(err)
		}
		next := newService(cfg, store, nil)
		defer next.Close()
		next.Import(st)

		// With hashes that fit no key, only what is known is right.
		for id, a := range store.accounts {
			a.Hash = []byte("none")
			if id == "rotated" {
				a.Epoch++
			}
			store.accounts[id] = a
		}
		bearer := func() error {
			_, err := next.Authenticate(t.Context(), header("Bearer "+token, here))
			return err
		}
		if err := errors.Join(come(next, "here", key), bearer()); err != nil {
			t.Errorf("a key and a token that were right: %v", err)
		}
		for what, err := range map[string]error{
			"a key that was never verified": come(next, "stranger", key),
			"a wrong key":                   come(next, "here", otherKey),
			"a key of a former epoch":       come(next, "rotated", key),
		} {
			if !errors.Is(err, ErrAuthentication) {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(time.Minute - time.Nanosecond)
		if err := bearer(); err != nil {
			t.Errorf("a token just before its time: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if err := bearer(); !errors.Is(err, ErrTokenExpired) && !errors.Is(err, ErrTokenInvalid) { // swept
			t.Errorf("a token after its time: %v", err)
		}
		time.Sleep(verifiedLifetime)
		if err := come(next, "here", key); !errors.Is(err, ErrAuthentication) {
			t.Errorf("a key that nobody has shown for long: %v", err)
		}
	})
}

// What makes no sense is left out and harms nothing.
func TestTakesOverNothingMalformed(t *testing.T) {
	s, _ := start(t, Config{TokenLifetime: 30 * time.Minute})
	secret := s.verified.secret
	s.Import(State{Secret: []byte("short"), Keys: []keyState{{Credential: make([]byte, 32), Client: "a", Left: time.Hour}}})
	if &s.verified.secret[0] != &secret[0] || len(s.verified.entries) != 0 {
		t.Error("a secret of another length was taken")
	}
	s.Import(State{
		Secret: make([]byte, len(secret)),
		Keys:   []keyState{{Credential: []byte("x"), Client: "a", Left: time.Hour}, {Credential: make([]byte, 32), Client: "b", Left: time.Hour}},
		Tokens: []tokenState{{Sum: []byte("x"), Client: "a", Left: time.Hour}, {Sum: make([]byte, 32), Client: "b", Left: time.Hour}},
	})
	for _, e := range s.tokens.bySum {
		if left := time.Until(e.expires); left > 30*time.Minute {
			t.Errorf("a token lives for %v, longer than any here", left)
		}
	}
	if len(s.verified.entries) != 1 || len(s.tokens.bySum) != 1 || len(s.tokens.byClient) != 1 {
		t.Errorf("%d keys and %d tokens, want those that are whole", len(s.verified.entries), len(s.tokens.bySum))
	}
	for _, e := range s.verified.entries {
		if left := time.Until(e.expires); left > verifiedLifetime {
			t.Errorf("remembered for %v", left)
		}
	}
}
