package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// both runs a test with a store in memory and with one on disk; reopen closes it and opens it again,
// where that is possible.
func both(t *testing.T, test func(t *testing.T, s *Store, reopen func() *Store)) {
	t.Run("memory", func(t *testing.T) {
		s := OpenMemory()
		test(t, s, func() *Store { return s })
	})
	t.Run("disk", func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, Config{Dir: dir})
		test(t, s, func() *Store {
			t.Helper()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, Config{Dir: dir})
			return s
		})
	})
}

func mustGet(t *testing.T, s *Store, id string) Client {
	t.Helper()
	c, err := s.Get(id)
	if err != nil {
		t.Fatalf("get %q: %v", id, err)
	}
	return c
}

func mustUpdate(t *testing.T, s *Store, id string, change func(*Client)) {
	t.Helper()
	err := s.Update(t.Context(), id, func(c *Client) error { change(c); return nil })
	if err != nil {
		t.Fatalf("update %q: %v", id, err)
	}
}

// Row RT-02: a record holds hash, roles, epoch and creation, and is the same after a restart.
func TestUpdate(t *testing.T) {
	both(t, func(t *testing.T, s *Store, reopen func() *Store) {
		mustInsert(t, s, "a", "b")
		if c := mustGet(t, s, "a"); c.Epoch != 1 || c.Roles != nil || c.Revoked {
			t.Errorf("a new client is %+v, want epoch 1 and no more", c)
		}
		roles := []string{"client", "billing.v2_x-y"}
		mustUpdate(t, s, "a", func(c *Client) { c.Roles, c.Epoch, c.Hash, c.Revoked = roles, 7, []byte("other"), true })
		mustUpdate(t, s, "b", func(c *Client) { c.Roles = []string{} })
		roles[0] = "changed by the caller"
		mustGet(t, s, "a").Roles[1] = "changed by a reader"
		s = reopen()
		want := Client{
			ID: "a", Hash: []byte("other"), Created: testClient("a").Created,
			Roles: []string{"client", "billing.v2_x-y"}, Epoch: 7, Revoked: true,
		}
		if c := mustGet(t, s, "a"); !reflect.DeepEqual(c, want) {
			t.Errorf("got %+v, want %+v", c, want)
		}
		if c := mustGet(t, s, "b"); c.Roles == nil || len(c.Roles) != 0 || c.Epoch != 1 {
			t.Errorf("no roles at all: got %+v", c)
		}
		mustUpdate(t, s, "b", func(c *Client) { c.Roles = nil })
		if c := mustGet(t, reopen(), "b"); c.Roles != nil {
			t.Errorf("the default roles: got %+v", c)
		}
	})
}

// What Update refuses changes nothing.
func TestUpdateRefuses(t *testing.T) {
	both(t, func(t *testing.T, s *Store, reopen func() *Store) {
		mustInsert(t, s, "a")
		mustUpdate(t, s, "a", func(c *Client) { c.Epoch = 5 })
		before := mustGet(t, s, "a")
		err := s.Update(t.Context(), "b", func(*Client) error { t.Error("change was called"); return nil })
		wantErr(t, "unknown client", err, ErrNotFound)
		mine := errors.New("no")
		wantErr(t, "an error of change", s.Update(t.Context(), "a", func(c *Client) error { c.Epoch++; return mine }), mine)
		many := make([]string, maxRoles+1)
		for i := range many {
			many[i] = fmt.Sprint("role-", i)
		}
		for name, change := range map[string]func(*Client){
			"other id":          func(c *Client) { c.ID = "b" },
			"other creation":    func(c *Client) { c.Created = time.Now() },
			"smaller epoch":     func(c *Client) { c.Epoch-- },
			"no hash":           func(c *Client) { c.Hash = nil },
			"17 roles":          func(c *Client) { c.Roles = many },
			"role of 33 bytes":  func(c *Client) { c.Roles = []string{strings.Repeat("r", maxRoleBytes+1)} },
			"empty role":        func(c *Client) { c.Roles = []string{""} },
			"role in capitals":  func(c *Client) { c.Roles = []string{"Client"} },
			"role that repeats": func(c *Client) { c.Roles = []string{"a", "b", "a"} },
		} {
			err := s.Update(t.Context(), "a", func(c *Client) error { change(c); return nil })
			wantErr(t, name, err, ErrInvalid)
		}
		if c := mustGet(t, reopen(), "a"); !reflect.DeepEqual(c, before) {
			t.Errorf("got %+v, want %+v as before", c, before)
		}
	})
	s := OpenMemory()
	mustInsert(t, s, "a")
	mustUpdate(t, s, "a", func(c *Client) { // the most that goes
		for i := range maxRoles {
			c.Roles = append(c.Roles, fmt.Sprintf("%0*d", maxRoleBytes, i))
		}
	})
}

// Row RT-05: the epoch of an id never comes again, whatever happens to it and to the server.
func TestEpochsDoNotRepeat(t *testing.T) {
	both(t, func(t *testing.T, s *Store, reopen func() *Store) {
		mustInsert(t, s, "a", "other")
		last := mustGet(t, s, "a").Epoch
		for range 3 {
			mustUpdate(t, s, "a", func(c *Client) { c.Epoch += 2; c.Roles = []string{"gone"} })
			last = mustGet(t, s, "a").Epoch
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			s = reopen()
			mustInsert(t, s, "a")
			c := mustGet(t, reopen(), "a")
			if c.Epoch <= last || c.Roles != nil {
				t.Errorf("registered anew with epoch %d and roles %q, want above %d and none", c.Epoch, c.Roles, last)
			}
			s = reopen()
		}
		if c := mustGet(t, s, "other"); c.Epoch != 1 {
			t.Errorf("another client has epoch %d", c.Epoch)
		}
		// An attempt to choose it counts for nothing.
		c := testClient("chosen")
		c.Epoch = 1
		if err := s.Insert(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if c := mustGet(t, s, "chosen"); c.Epoch <= last {
			t.Errorf("a new client has epoch %d, want above %d", c.Epoch, last)
		}
	})
}

// A server from before there were accounts reads and writes "client/…" alone. What it leaves is read right.
func TestOlderServerBetween(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	mustInsert(t, s, "kept", "removed", "anew", "revoked")
	for _, id := range []string{"kept", "removed", "anew"} {
		mustUpdate(t, s, id, func(c *Client) { c.Epoch, c.Roles = 9, []string{"special"} })
	}
	mustUpdate(t, s, "revoked", func(c *Client) { c.Epoch, c.Hash, c.Revoked = 2, []byte("no key's"), true })
	err := s.db.Update(func(txn *badger.Txn) error {
		for _, id := range []string{"kept", "removed", "anew", "revoked"} {
			item, err := txn.Get(clientKey(id))
			if err != nil {
				return err
			}
			// The form has not changed: version, and hash behind 13 bytes.
			err = item.Value(func(b []byte) error {
				if hash := string(b[13:]); b[0] != 1 || hash != string(s.clients[id].Hash) {
					return fmt.Errorf("the record of %q is %q", id, b)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		anew := testClient("anew")
		anew.Created = anew.Created.Add(time.Hour)
		return errors.Join(txn.Delete(clientKey("removed")), txn.Set(clientKey("anew"), anew.encode()))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Dir: dir})
	if c := mustGet(t, s, "kept"); c.Epoch != 9 || !slices.Equal(c.Roles, []string{"special"}) {
		t.Errorf("kept: %+v", c)
	}
	if c := mustGet(t, s, "anew"); c.Epoch <= 9 || c.Roles != nil {
		t.Errorf("registered anew meanwhile: %+v, want nothing of the former one", c)
	}
	if c := mustGet(t, s, "revoked"); c.Epoch != 2 || !c.Revoked {
		t.Errorf("revoked: %+v", c)
	}
	mustInsert(t, s, "removed")
	if c := mustGet(t, s, "removed"); c.Epoch <= 9 || c.Roles != nil {
		t.Errorf("removed meanwhile, registered now: %+v", c)
	}
}

func TestList(t *testing.T) {
	both(t, func(t *testing.T, s *Store, _ func() *Store) {
		mustInsert(t, s, "c", "a", "d", "b:ü")
		ids := func(after string, limit int) (ids []string) {
			t.Helper()
			list, err := s.List(after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list {
				c.Hash[0]++ // is ours
				ids = append(ids, c.ID)
			}
			return ids
		}
		for _, tc := range []struct {
			after string
			limit int
			want  []string
		}{
			{"", 0, []string{"a", "b:ü", "c", "d"}},
			{"", 2, []string{"a", "b:ü"}},
			{"b:ü", 2, []string{"c", "d"}},
			{"bb", 1, []string{"c"}},
			{"d", 5, nil},
		} {
			if got := ids(tc.after, tc.limit); !slices.Equal(got, tc.want) {
				t.Errorf("list after %q, at most %d: %q, want %q", tc.after, tc.limit, got, tc.want)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := s.List("", 0)
		wantErr(t, "list after close", err, ErrClosed)
	})
	s := OpenMemory()
	for i := range MaxList + 1 {
		mustInsert(t, s, fmt.Sprint(i))
	}
	for _, limit := range []int{0, -1, MaxList, MaxList + 1} {
		if list, err := s.List("", limit); err != nil || len(list) != MaxList {
			t.Errorf("list at most %d: %d, %v, want %d", limit, len(list), err, MaxList)
		}
	}
}

// Row OT-13: a call id that was used stays used, over restarts, and for its group alone.
func TestCallIDs(t *testing.T) {
	both(t, func(t *testing.T, s *Store, reopen func() *Store) {
		until := time.Now().Add(time.Hour)
		use := func(group, call string, until time.Time) error { return s.UseCallID(t.Context(), group, call, until) }
		for _, id := range [][2]string{{"g", "1"}, {"g", "2"}, {"h", "1"}, {"g1", "x"}} {
			if err := use(id[0], id[1], until); err != nil {
				t.Fatal(err)
			}
		}
		wantErr(t, "used", use("g", "1", until.Add(time.Hour)), ErrConflict)
		wantErr(t, "no group", use("", "1", until), ErrInvalid)
		wantErr(t, "no call", use("g", "", until), ErrInvalid)
		wantErr(t, "long group", use(strings.Repeat("g", maxIDBytes+1), "1", until), ErrInvalid)
		wantErr(t, "long call", use("g", strings.Repeat("c", maxCallIDBytes+1), until), ErrInvalid)
		if err := use(strings.Repeat("g", maxIDBytes), strings.Repeat("c", maxCallIDBytes), until); err != nil {
			t.Error(err)
		}
		if err := use("g", "past", time.Now().Add(-time.Hour)); err != nil {
			t.Error(err)
		}
		s = reopen()
		for id, want := range map[[2]string]bool{
			{"g", "1"}: true, {"g", "2"}: true, {"h", "1"}: true, {"h", "2"}: false, {"g", "3"}: false,
			{"", "g1"}: false, {"g1", "1"}: false, {"g", "past"}: false,
		} {
			if got, err := s.CallIDUsed(id[0], id[1]); err != nil || got != want {
				t.Errorf("%q used: %v, %v, want %v", id, got, err, want)
			}
		}
		wantErr(t, "used before the restart", use("g", "2", until), ErrConflict)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := s.CallIDUsed("g", "1")
		wantErr(t, "used after close", err, ErrClosed)
		wantErr(t, "use after close", use("g", "9", until), ErrClosed)
	})
}

func TestCallIDIsUsedOnce(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	const racers = 50
	errs := make(chan error, racers)
	for range racers {
		go func() { errs <- s.UseCallID(t.Context(), "g", "1", time.Now().Add(time.Hour)) }()
	}
	won := 0
	for range racers {
		if err := <-errs; err == nil {
			won++
		} else {
			wantErr(t, "racing use", err, ErrConflict)
		}
	}
	if won != 1 {
		t.Errorf("%d uses of one call id succeeded, want 1", won)
	}
}

// A used call id is forgotten when its time has come, not before, and takes no memory then.
func TestCallIDsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := OpenMemory()
		use := func(call string, after time.Duration) error {
			return s.UseCallID(context.Background(), "g", call, time.Now().Add(after))
		}
		if err := use("1", 59*time.Second+time.Nanosecond); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59*time.Second + time.Nanosecond)
		wantErr(t, "used until then", use("1", time.Hour), ErrConflict)
		time.Sleep(time.Second)
		if used, err := s.CallIDUsed("g", "1"); used || err != nil {
			t.Errorf("used when its time has come: %v, %v", used, err)
		}
		if err := use("1", time.Second); err != nil {
			t.Error(err)
		}
		time.Sleep(sweepEvery)
		s.mu.Lock()
		s.callIDs.sweep(time.Now())
		if s.callIDs.count != 0 || len(s.callIDs.byGroup) != 0 {
			t.Errorf("%d call ids of %d groups stay in memory", s.callIDs.count, len(s.callIDs.byGroup))
		}
		s.mu.Unlock()
	})
}

// The cap on used call ids, of the store and of one group, at the limit and above.
func TestCallIDCaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(Config{MaxCallIDs: 4 * callIDShare}, orDiscard(nil))
		use := func(group string, call int) error {
			return s.UseCallID(context.Background(), group, fmt.Sprint(call), time.Now().Add(time.Hour))
		}
		for g := range callIDShare {
			for call := range 4 {
				if err := use(fmt.Sprint(g), call); err != nil {
					t.Fatal(err)
				}
			}
			if g < callIDShare-1 {
				wantErr(t, "one more of a group", use(fmt.Sprint(g), 5), ErrCallIDs)
			}
		}
		wantErr(t, "one more of another group", use("one more", 1), ErrCallIDs)
		wantErr(t, "a used one at the cap", use("0", 1), ErrConflict)
		time.Sleep(time.Hour + time.Second)
		if err := use("one more", 1); err != nil {
			t.Errorf("after all have expired: %v", err)
		}
		if s.callIDs.count != 1 {
			t.Errorf("%d call ids are held, want 1", s.callIDs.count)
		}
	})
}

// Row OT-19: what has expired does not grow the store: Badger drops it when it compacts, and a start does
// not load it.
func TestExpiredEntriesLeaveTheStore(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	mustInsert(t, s, "a")
	// Past expiries straight into Badger, in few commits: UseCallID would not write them.
	const expired = 60_000
	for from := 0; from < expired; from += 500 {
		err := s.db.Update(func(txn *badger.Txn) error {
			for i := from; i < from+500; i++ {
				key := callIDKey("g", sumOf(fmt.Sprint(i)))
				e := badger.NewEntry(key, encodeCallID(key, 1_000_000_000))
				e.ExpiresAt = 1_000_000_000
				if err := txn.SetEntry(e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Dir: dir})
	if s.callIDs.count != 0 {
		t.Errorf("%d expired call ids were loaded", s.callIDs.count)
	}
	if err := s.db.Flatten(1); err != nil {
		t.Fatal(err)
	}
	var size uint64
	for _, table := range s.db.Tables() {
		size += uint64(table.KeyCount)
	}
	if size > expired/10 {
		t.Errorf("%d of %d entries are left after compaction", size, expired)
	}
	mustGet(t, s, "a")
}

func TestAccountForm(t *testing.T) {
	want := testClient("c1")
	want.Epoch, want.Roles, want.Revoked = 1<<40, []string{"client", "x"}, true
	b := want.encodeAccount()
	a, err := decodeAccount("c1", b)
	got := a.join(testClient("c1"))
	if err != nil || !reflect.DeepEqual(got, want) || !a.created.Equal(want.Created) {
		t.Fatalf("decoded %+v, %v, want %+v", got, err, want)
	}
	if _, err := decodeAccount("c2", b); err == nil {
		t.Error("the account of one client was accepted for another")
	}
	for i := range b {
		broken := slices.Clone(b)
		broken[i] ^= 0x10
		if _, err := decodeAccount("c1", broken); err == nil {
			t.Errorf("a flipped bit in byte %d was accepted", i)
		}
		if _, err := decodeAccount("c1", b[:i]); err == nil {
			t.Errorf("an account cut to %d bytes was accepted", i)
		}
	}
}

// A damaged account, epoch or call id is named at the start.
func TestDamagedRecordsAreNamed(t *testing.T) {
	for name, key := range map[string][]byte{
		"account": accountKey("a"), "epoch": epochKey, "used call id": callIDKey("g", sumOf("1")),
	} {
		dir := t.TempDir()
		s := mustOpen(t, Config{Dir: dir})
		mustInsert(t, s, "a")
		if err := s.db.Update(func(txn *badger.Txn) error { return txn.Set(key, []byte("\x01garbage that is long enough")) }); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Config{Dir: dir}, nil)
		wantErr(t, name, err, ErrDamaged)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error does not name it: %v", name, err)
		}
	}
}

// FuzzRecords reads arbitrary records as each kind. What is accepted is valid, and written the same again.
func FuzzRecords(f *testing.F) {
	c := testClient("c1")
	f.Add("c1", c.encode())
	c.Epoch, c.Roles, c.Revoked = 3, []string{"client", "moderate"}, true
	f.Add("c1", c.encodeAccount())
	f.Add("", encodeEpoch(7))
	key := callIDKey("g", sumOf("1"))
	f.Add(string(key), encodeCallID(key, 1_800_000_000))
	f.Fuzz(func(t *testing.T, id string, b []byte) {
		sealed := slices.Clone(b)
		if len(sealed) > 5 { // as if the checksum were right
			sealed[0] = recordVersion
			sum := recordChecksum(id, sealed)
			sealed[1], sealed[2], sealed[3], sealed[4] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
		}
		for _, b := range [][]byte{b, sealed} {
			if c, err := decodeClient(id, b); err == nil && (c.check() != nil || !slices.Equal(c.encode(), b)) {
				t.Fatalf("client %+v of %q", c, b)
			}
			if a, err := decodeAccount(id, b); err == nil {
				c := a.join(Client{ID: id, Created: a.created})
				if checkRoles(c.Roles) != nil || c.Epoch == 0 || !slices.Equal(c.encodeAccount(), b) {
					t.Fatalf("account %+v of %q", a, b)
				}
			}
			if epoch, err := decodeEpoch(b); err == nil && id == "" && !slices.Equal(encodeEpoch(epoch), b) {
				t.Fatalf("epoch %d of %q", epoch, b)
			}
			if until, err := decodeCallID([]byte(id), b); err == nil && !slices.Equal(encodeCallID([]byte(id), until), b) {
				t.Fatalf("expiry %d of %q", until, b)
			}
		}
		key := append(slices.Clone(callIDPrefix), b...)
		if group, sum, err := parseCallIDKey(key); err == nil && !slices.Equal(callIDKey(group, sum), key) {
			t.Fatalf("group %q of %q", group, key)
		}
	})
}
