package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// occupy takes every slot of b until the test ends or free is called.
func occupy(t *testing.T, b *budget) (free func()) {
	t.Helper()
	for range cap(b.slots) {
		if err := b.acquire(t.Context(), netip.Prefix{}); err != nil {
			t.Fatal(err)
		}
	}
	return sync.OnceFunc(func() {
		for range cap(b.slots) {
			b.release()
		}
	})
}

func TestBudgetQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget("test", 2, 4, 3*time.Second)
		one, two := network(here), network(there)
		free := occupy(t, b)
		var wg sync.WaitGroup
		got := make(chan error, 4)
		wait := func(ctx context.Context, addr netip.Prefix) {
			wg.Go(func() { got <- b.acquire(ctx, addr) })
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, one)
		wait(t.Context(), one)
		wantLimit(t, "half of the queue is one address's", b.acquire(t.Context(), one), "test")
		wait(t.Context(), two)
		wait(t.Context(), netip.Prefix{})
		wantLimit(t, "the queue is full", b.acquire(t.Context(), two), "test")

		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in the queue: %v", err)
		}
		b.release()
		if err := <-got; err != nil {
			t.Errorf("a slot was free: %v", err)
		}
		begin := time.Now()
		for range 2 {
			wantLimit(t, "patience ran out", <-got, "test")
		}
		if waited := time.Since(begin); waited != 3*time.Second {
			t.Errorf("waited %v, want 3s", waited)
		}
		wg.Wait()
		free()
		if b.waiting != 0 || len(b.byAddr) != 0 {
			t.Errorf("%d waiting, by address %v", b.waiting, b.byAddr)
		}
		ended, cancelEnded := context.WithCancel(t.Context())
		cancelEnded()
		if err := b.acquire(ended, one); !errors.Is(err, context.Canceled) {
			t.Errorf("ended context: %v", err)
		}
	})
}

// A flood of registrations is refused beyond its queue, and logins do not notice it.
func TestRegistrationsCannotEatTheLoginBudget(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "owner")
	free := occupy(t, s.registrations)
	defer free()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var refused, gaveUp atomic.Int32
	flooded := make(chan struct{}, 500)
	for i := range 500 {
		wg.Go(func() {
			err := s.Register(ctx, fmt.Sprint("flood-", i), key)
			var limit *LimitError
			switch {
			case errors.As(err, &limit):
				refused.Add(1)
				flooded <- struct{}{}
			case errors.Is(err, context.Canceled):
				gaveUp.Add(1)
			default:
				t.Errorf("register: %v", err)
			}
		})
	}
	for range 500 - queueLength {
		<-flooded
	}
	mustLogin(t, s, "owner")
	cancel()
	wg.Wait()
	// Fewer give up if the machine is so slow that their patience ends first.
	if refused.Load() < 500-queueLength || refused.Load()+gaveUp.Load() != 500 {
		t.Errorf("%d refused and %d gave up, want 500 in all and at most %d in the queue",
			refused.Load(), gaveUp.Load(), queueLength)
	}
}

// Protocol section 5.3: 20 logins at once succeed, of one client or of several.
func TestTwentyLoginsAtOnce(t *testing.T) {
	s, _ := start(t, Config{})
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = fmt.Sprint("c", i)
	}
	mustRegister(t, s, ids...)
	for name, pick := range map[string]func(int) string{
		"different clients": func(i int) string { return ids[i] },
		"one client":        func(int) string { return ids[0] },
	} {
		s.verified.forget(ids[0])
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if _, err := s.Login(t.Context(), pick(i), key, from(here)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
	}
}

// Requests with one key share one computation, and go on if the one who computes gives up.
func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlights()
		var computed atomic.Int32
		var wg sync.WaitGroup
		leader, cancel := context.WithCancel(t.Context())
		go2 := make(chan struct{})
		errOther := errors.New("other")
		asked := question{credential{1}, "hash", 1}
		compute := func(ctx context.Context) func() error {
			return func() error {
				computed.Add(1)
				select {
				case <-go2:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		wg.Go(func() {
			if err := f.do(leader, asked, compute(leader)); !errors.Is(err, context.Canceled) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				if err := f.do(t.Context(), asked, compute(t.Context())); err != nil {
					t.Errorf("follower: %v", err)
				}
			})
		}
		// What is stored is another hash by now: the answer about the one before is none.
		if err := f.do(t.Context(), question{credential{1}, "other", 2}, func() error { return errOther }); !errors.Is(err, errOther) {
			t.Errorf("after a change of the key: %v", err)
		}
		gone, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := f.do(gone, asked, compute(gone)); !errors.Is(err, context.Canceled) {
				t.Errorf("follower who leaves: %v", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if n := computed.Load(); n != 2 {
			t.Errorf("%d computations, want the leader's and its follower's", n)
		}
		close(go2)
		wg.Wait()
		if len(f.flying) != 0 {
			t.Error("a flight is left")
		}
	})
}

// Fault F13: 200 backends that were here before are back without a single bcrypt.
func TestWarmHerd(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "first")
	headers := make([]string, 200)
	for i := range headers {
		id := fmt.Sprint("backend-", i)
		m.accounts[id] = m.accounts["first"]
		headers[i] = basic(id, key)
		if _, err := s.Authenticate(t.Context(), header(headers[i], here)); err != nil {
			t.Fatal(err)
		}
	}
	free := occupy(t, s.logins) // whoever needs bcrypt waits for ever
	defer free()
	begin := time.Now()
	var wg sync.WaitGroup
	for _, h := range headers {
		wg.Go(func() {
			if _, err := s.Authenticate(t.Context(), header(h, here)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the herd was back after %v, want 2s at most", took)
	}
}

func TestVerifiedKeyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(Config{BcryptCost: bcrypt.MinCost}, newMemory(), nil)
		defer s.Close()
		mustRegister(t, s, "c1")
		p, err := s.Authenticate(t.Context(), header(basic("c1", key), here))
		if err != nil {
			t.Fatal(err)
		}
		cached := func() bool {
			_, ok := s.verified.lookup(p.credential, time.Now())
			return ok
		}
		time.Sleep(verifiedLifetime - time.Nanosecond)
		if !cached() {
			t.Error("forgotten too early")
		}
		time.Sleep(time.Nanosecond)
		if cached() {
			t.Error("not forgotten in time")
		}
		time.Sleep(sweepInterval)
		synctest.Wait()
		if len(s.verified.entries) != 0 {
			t.Error("an expired entry stays in memory")
		}

		if p, err = s.Authenticate(t.Context(), header(basic("c1", key), here)); err != nil {
			t.Fatal(err)
		}
		release, again := s.Hold(p), s.Hold(p)
		time.Sleep(10 * time.Hour)
		again()
		again()
		if !cached() {
			t.Error("forgotten while a connection lives with it")
		}
		release()
		time.Sleep(verifiedLifetime)
		if cached() {
			t.Error("not forgotten after the last connection")
		}
		s.Hold(Principal{Admin: true})()
	})
}

func TestVerifiedKeysAreBounded(t *testing.T) {
	v, now := newVerifiedKeys(), time.Now()
	held := v.credential("held", key)
	v.add(held, "held", 1, now)
	defer v.hold(held)()
	for i := range maxVerified + 50 {
		v.add(v.credential(fmt.Sprint(i), key), "id", 1, now)
	}
	if _, ok := v.lookup(held, now); !ok || len(v.entries) != maxVerified {
		t.Errorf("%d entries, the held one there: %v", len(v.entries), ok)
	}
	if v.credential("ab", "c") == v.credential("a", "bc") {
		t.Error("where the id ends makes no difference")
	}
	if newVerifiedKeys().credential("held", key) == held {
		t.Error("two processes use the same secret")
	}
}

func TestTokenExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(Config{BcryptCost: bcrypt.MinCost, TokenLifetime: 90 * time.Second}, newMemory(), nil)
		defer s.Close()
		mustRegister(t, s, "c1", "c2")
		token, unused := mustLogin(t, s, "c1"), mustLogin(t, s, "c2")
		time.Sleep(90*time.Second - time.Nanosecond)
		if _, err := s.Authenticate(t.Context(), header("Bearer "+token, here)); err != nil {
			t.Errorf("just before it expires: %v", err)
		}
		time.Sleep(time.Nanosecond) // use has not extended it
		_, err := s.Authenticate(t.Context(), header("Bearer "+token, here))
		wantErr(t, "expired token", err, ErrTokenExpired, "authentication failed: session is expired")
		time.Sleep(sweepInterval)
		synctest.Wait()
		if len(s.tokens.bySum)+len(s.tokens.byClient) != 0 {
			t.Error("an expired token that nobody used stays in memory") // fault A9
		}
		_, err = s.Authenticate(t.Context(), header("Bearer "+unused, here))
		wantErr(t, "swept token", err, ErrTokenInvalid, "authentication failed: token is invalid")
	})
}

func TestTokensAreBounded(t *testing.T) {
	k, expires := newTokens(), time.Now().Add(time.Hour)
	for i := range maxTokens {
		if _, err := k.issue(tokenEntry{fmt.Sprint(i), 1, expires}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := k.issue(tokenEntry{"one more", 1, expires})
	wantLimit(t, "one more client", err, "tokens")
	if _, err := k.issue(tokenEntry{"7", 1, expires}); err != nil || len(k.bySum) != maxTokens {
		t.Errorf("replacing a token: %v, %d tokens", err, len(k.bySum))
	}
}

// Row OT-18, faults A6 and F27: who guesses waits longer and longer, its victim does not.
func TestFailedLoginsAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(Config{BcryptCost: bcrypt.MinCost}, newMemory(), nil)
		defer s.Close()
		mustRegister(t, s, "owner", "other")
		guess := func(id string) error {
			_, err := s.Login(t.Context(), id, otherKey, from(there))
			return err
		}
		for i := range freeFailures {
			if err := guess("owner"); !errors.Is(err, ErrAuthentication) {
				t.Fatalf("guess %d: %v", i, err)
			}
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 25, 25} {
			err := guess("owner")
			wantLimit(t, "guess while slowed down", err, "failed_logins")
			var limit *LimitError
			if errors.As(err, &limit) && limit.RetryAfter != want*time.Second {
				t.Errorf("told to wait %v, want %v", limit.RetryAfter, want*time.Second)
			}
			// The right key, too, has to wait there, or guessing would go on.
			_, err = s.Login(t.Context(), "owner", key, from(there))
			wantLimit(t, "right key from there", err, "failed_logins")
			time.Sleep(want * time.Second)
			if err := guess("owner"); !errors.Is(err, ErrAuthentication) {
				t.Fatalf("guess after waiting: %v", err)
			}
		}
		mustLogin(t, s, "owner") // from elsewhere
		if _, err := s.Login(t.Context(), "owner", key, from(there)); err != nil {
			t.Errorf("a key that was right lately is slowed down by others' failures: %v", err)
		}
		if err := guess("other"); !errors.Is(err, ErrAuthentication) {
			t.Errorf("another id from there: %v", err)
		}
		for range freeFailures { // an id that does not exist is treated alike
			if err := guess("nobody"); !errors.Is(err, ErrAuthentication) {
				t.Fatal(err)
			}
		}
		wantLimit(t, "unknown id", guess("nobody"), "failed_logins")
		time.Sleep(maxDelay + failureWindow + sweepInterval)
		synctest.Wait()
		if len(s.failures.sources) != 0 {
			t.Errorf("%d sources stay in memory", len(s.failures.sources))
		}
	})
}

func TestFailuresInWindow(t *testing.T) {
	f, s, now := newFailures(), source{"c1", network(here)}, time.Unix(1000, 0)
	for range 5 {
		for range freeFailures - 1 {
			f.add(s, now)
		}
		if wait := f.wait(s, now); wait != 0 {
			t.Fatalf("%d failures make it wait %v", freeFailures-1, wait)
		}
		now = now.Add(failureWindow)
	}
	for range freeFailures - 1 {
		f.add(s, now)
	}
	f.clear(s) // a success
	if f.add(s, now); f.wait(s, now) != 0 {
		t.Error("failures before a success still count")
	}
	for i := range maxSources + 100 {
		f.add(source{fmt.Sprint("id-", i), network(there)}, now)
	}
	if n := len(f.sources); n != maxSources {
		t.Errorf("%d sources, want %d", n, maxSources)
	}
}

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7":               "192.0.2.7/32",
		"::ffff:192.0.2.7":        "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::/64",
		"fe80::1%eth0":            "fe80::/64",
		"2001:db8:1:2:ffff::%x12": "2001:db8:1:2::/64",
	} {
		if got := network(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("network of %s is %v, want %s", addr, got, want)
		}
	}
	if got := network(netip.Addr{}); got.IsValid() {
		t.Errorf("network of no address is %v", got)
	}
}

// Row RT-03, fault A5: an unknown id, a wrong key, a removed client, a revoked client and a client whose
// hash has a lower cost take the same time.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	const tries, attempts = 40, 5
	m := newMemory()
	old := newService(Config{BcryptCost: 4}, m, nil)
	t.Cleanup(old.Close)
	mustRegister(t, old, "old hash")
	s := newService(Config{BcryptCost: 6}, m, nil)
	t.Cleanup(s.Close)
	mustRegister(t, s, "known", "removed", "revoked")
	if err := s.Unregister(t.Context(), "removed"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	ids := []string{"unknown", "known", "removed", "revoked", "old hash"}
	addr := netip.MustParseAddr("10.0.0.0")
	measure := func() (medians []time.Duration, spread float64) {
		took := make([][]time.Duration, len(ids))
		for range tries {
			for i, id := range ids {
				addr = addr.Next() // no back-off
				begin := time.Now()
				_, err := s.Authenticate(t.Context(), header(basic(id, otherKey), addr))
				took[i] = append(took[i], time.Since(begin))
				wantErr(t, id, err, ErrAuthentication, "authentication failed")
			}
		}
		for _, d := range took {
			slices.Sort(d)
			medians = append(medians, d[len(d)/2])
		}
		low, high := slices.Min(medians), slices.Max(medians)
		return medians, float64(high-low) / float64(low)
	}
	// A busy machine can spoil a measurement; a difference that is there shows in every one.
	for i := range attempts {
		medians, spread := measure()
		t.Logf("medians of %v: %v, %.1f %% apart", ids, medians, 100*spread)
		if spread <= 0.15 {
			return
		}
		if i == attempts-1 {
			t.Errorf("medians are %.1f %% apart in the last of %d measurements, want 15 %% at most", 100*spread, attempts)
		}
	}
}

// BenchmarkHerd authenticates 200 different backends that come at once, at the default cost: warm
// after a lost network, cold after a restart of this process. Who is told to retry does so.
func BenchmarkHerd(b *testing.B) {
	const backends = 200
	m := newMemory()
	hash, err := bcrypt.GenerateFromPassword([]byte(key), DefaultBcryptCost)
	if err != nil {
		b.Fatal(err)
	}
	for i := range backends {
		m.accounts[fmt.Sprint("backend-", i)] = Account{Hash: hash, Epoch: 1}
	}
	herd := func(b *testing.B, s *Service) {
		var wg sync.WaitGroup
		for i := range backends {
			wg.Go(func() {
				for {
					_, err := s.Authenticate(b.Context(), header(basic(fmt.Sprint("backend-", i), key), here))
					var limit *LimitError
					if !errors.As(err, &limit) {
						if err != nil {
							b.Error(err)
						}
						return
					}
					time.Sleep(limit.RetryAfter)
				}
			})
		}
		wg.Wait()
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			s := newService(Config{BcryptCost: DefaultBcryptCost}, m, nil)
			herd(b, s)
			s.Close()
		}
	})
	b.Run("warm", func(b *testing.B) {
		s := newService(Config{BcryptCost: DefaultBcryptCost}, m, nil)
		defer s.Close()
		herd(b, s)
		for b.Loop() {
			herd(b, s)
		}
	})
}
