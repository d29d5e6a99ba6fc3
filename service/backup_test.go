package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rtcd/service/auth"
	"rtcd/service/store"
)

// openAccounts returns a store and what authenticates with it.
func openAccounts(t *testing.T, dir string) (*store.Store, *auth.Service) {
	t.Helper()
	st, err := store.Open(store.Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{}, keyStore{st, slog.New(slog.DiscardHandler)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st, a
}

func authenticate(a *auth.Service, id, key string) (auth.Principal, error) {
	header := "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+key))
	return a.Authenticate(context.Background(), auth.Credentials{
		Authorization: header, Remote: netip.MustParseAddr("192.0.2.1"),
	})
}

// Row CR-02: of a backup made under 200 writes a second, every client authenticates after restoration into an
// empty folder, in the epoch and with the roles that it had; what was dead stays dead.
func TestClientsAuthenticateAfterRestoration(t *testing.T) {
	st, a := openAccounts(t, t.TempDir())
	const clients = 4
	key := func(i int) string { return fmt.Sprintf("the key of client %021d", i) }
	for i := range clients {
		if err := a.Register(t.Context(), fmt.Sprint("c", i), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	epoch, err := a.Rotate(t.Context(), "c1", key(101))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetRoles(t.Context(), "c2", []string{"special"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(t.Context(), "c3"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writes atomic.Int64
	var wg sync.WaitGroup
	enough := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(time.Second / 200)
		defer tick.Stop()
		for i := range 1000 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := st.Insert(context.Background(), store.Client{ID: fmt.Sprint("w", i), Hash: []byte("hash")}); err != nil {
				t.Error(err)
			}
			if writes.Add(1) == 20 {
				close(enough)
			}
		}
	})
	<-enough
	var out bytes.Buffer
	info, err := st.Backup(t.Context(), &out)
	stop()
	wg.Wait()
	if err != nil || info.Clients < clients+20 {
		t.Fatalf("backup of %d clients, %v", info.Clients, err)
	}
	dir := t.TempDir()
	if _, err := store.Restore(t.Context(), bytes.NewReader(out.Bytes()), dir, false); err != nil {
		t.Fatal(err)
	}
	_, restored := openAccounts(t, dir)
	for i := range clients {
		id, k := fmt.Sprint("c", i), key(i)
		want := auth.Principal{Epoch: 1, Roles: []string{"client"}}
		switch i {
		case 1:
			if _, err := authenticate(restored, id, k); err == nil {
				t.Error("the key from before the rotation works")
			}
			k, want.Epoch = key(101), epoch
		case 2:
			want.Roles = []string{"special"}
		case 3:
			if _, err := authenticate(restored, id, k); err == nil {
				t.Error("the key of the revoked client works")
			}
			continue
		}
		p, err := authenticate(restored, id, k)
		if err != nil || p.Epoch != want.Epoch || fmt.Sprint(p.Roles) != fmt.Sprint(want.Roles) {
			t.Errorf("%s: %+v, %v, want epoch %d and roles %q", id, p, err, want.Epoch, want.Roles)
		}
	}
}

// Rows RT-05, OT-03: over the real store, an epoch survives a restart and is not met again by an id that is
// removed and registered anew.
func TestEpochsOverTheStore(t *testing.T) {
	dir := t.TempDir()
	const key = "0123456789abcdef0123456789abcdef"
	st, a := openAccounts(t, dir)
	if err := a.Register(t.Context(), "c1", key); err != nil {
		t.Fatal(err)
	}
	epoch, err := a.Rotate(t.Context(), "c1", key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.Login(t.Context(), "c1", key, auth.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Unregister(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	_, again := openAccounts(t, dir)
	if err := again.Register(t.Context(), "c1", key); err != nil {
		t.Fatal(err)
	}
	if p, err := authenticate(again, "c1", key); err != nil || p.Epoch <= epoch {
		t.Errorf("registered anew: epoch %d, %v, want above %d", p.Epoch, err, epoch)
	}
	if _, err := again.Authenticate(t.Context(), auth.Credentials{Authorization: "Bearer " + token}); err == nil {
		t.Error("a token from before works")
	}
}
