package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

func mustBackup(t *testing.T, s *Store) ([]byte, BackupInfo) {
	t.Helper()
	var out bytes.Buffer
	info, err := s.Backup(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), info
}

// fullStore returns a store with something of every kind in it.
func fullStore(t *testing.T) *Store {
	t.Helper()
	s := mustOpen(t, Config{Dir: t.TempDir()})
	for i := range 40 {
		id := fmt.Sprint("client-", i)
		mustInsert(t, s, id)
		mustUpdate(t, s, id, func(c *Client) {
			for n := range maxRoles {
				c.Roles = append(c.Roles, fmt.Sprintf("role-%027d", n))
			}
			c.Epoch += uint64(i)
		})
	}
	if err := s.Delete(t.Context(), "client-39"); err != nil {
		t.Fatal(err)
	}
	if err := s.UseCallID(t.Context(), "client-1", "call", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return s
}

func allClients(t *testing.T, s *Store) []Client {
	t.Helper()
	list, err := s.List("", 0)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Row CR-02: a store that is restored is what was backed up, with roles, epochs and used call ids.
func TestBackupAndRestore(t *testing.T) {
	s := fullStore(t)
	want := allClients(t, s)
	b, info := mustBackup(t, s)
	if info.Clients != 39 || info.CallIDs != 1 || info.Bytes != int64(len(b)) || !bytes.HasSuffix(b, info.SHA256[:]) {
		t.Errorf("backup of %d bytes: %+v", len(b), info)
	}
	if verified, err := VerifyBackup(bytes.NewReader(b)); err != nil || verified != info {
		t.Errorf("verified: %+v, %v, want %+v", verified, err, info)
	}
	dir := filepath.Join(t.TempDir(), "made", "anew")
	if restored, err := Restore(t.Context(), bytes.NewReader(b), dir, false); err != nil || restored != info {
		t.Fatalf("restored: %+v, %v, want %+v", restored, err, info)
	}
	checkModes(t, filepath.Join(dir, folderName))
	r := mustOpen(t, Config{Dir: dir})
	if got := allClients(t, r); !reflect.DeepEqual(got, want) {
		t.Errorf("restored clients %+v, want %+v", got, want)
	}
	if used, err := r.CallIDUsed("client-1", "call"); err != nil || !used {
		t.Errorf("the used call id: %v, %v", used, err)
	}
	mustInsert(t, r, "client-39")
	if c := mustGet(t, r, "client-39"); c.Epoch <= 40 {
		t.Errorf("a client that was removed before the backup has epoch %d now, want above 40", c.Epoch)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
}

// Row CR-02: a backup that is made while 200 writes a second go on holds everything acknowledged before it
// began, and of no write only a part.
func TestBackupUnderWrites(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	mustInsert(t, s, "changing")
	ctx, stop := context.WithCancel(t.Context())
	var acked atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		tick := time.NewTicker(time.Second / 200)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			err := s.Insert(t.Context(), testClient(fmt.Sprint("client-", i)))
			if err == nil {
				err = s.Update(t.Context(), "changing", func(c *Client) error {
					c.Epoch++
					c.Hash = fmt.Append(nil, "hash of ", c.Epoch)
					return nil
				})
			}
			if err != nil {
				t.Error(err)
				return
			}
			acked.Store(int64(i) + 1)
		}
	})
	for round := range 5 {
		began := acked.Load()
		for acked.Load() < began+20 { // some more in the store first
			time.Sleep(time.Millisecond)
		}
		before := acked.Load()
		// The writer goes on while the backup is written slowly: once the first byte is out, the
		// backup waits for more writes.
		b := &slowBuffer{wait: func() {
			at := acked.Load()
			for acked.Load() < at+5 {
				time.Sleep(time.Millisecond)
			}
		}}
		info, err := s.Backup(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		after := acked.Load()
		dir := t.TempDir()
		if _, err := Restore(t.Context(), bytes.NewReader(b.Bytes()), dir, false); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, Config{Dir: dir})
		for i := range before {
			if _, err := r.Get(fmt.Sprint("client-", i)); err != nil {
				t.Fatalf("round %d: client %d of %d acknowledged ones: %v", round, i, before, err)
			}
		}
		if n := int64(info.Clients); n < before+1 || n > after+2 {
			t.Errorf("round %d: %d clients, want %d to %d", round, n, before+1, after+2)
		}
		c := mustGet(t, r, "changing")
		if string(c.Hash) != fmt.Sprint("hash of ", c.Epoch) || c.Epoch < uint64(before) {
			t.Errorf("round %d: hash %q at epoch %d", round, c.Hash, c.Epoch)
		}
	}
}

// A slowBuffer waits after its first write.
type slowBuffer struct {
	bytes.Buffer
	wait func()
	once sync.Once
}

func (b *slowBuffer) Write(p []byte) (int, error) {
	defer b.once.Do(b.wait)
	return b.Buffer.Write(p)
}

// Row CR-02: a backup cut or flipped anywhere is refused, and the target stays what it was.
func TestDamagedBackupIsRefused(t *testing.T) {
	good, _ := mustBackup(t, fullStore(t))
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	mustInsert(t, s, "mine")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	fresh := filepath.Join(t.TempDir(), "fresh")
	try := func(what string, b []byte) {
		t.Helper()
		if _, err := VerifyBackup(bytes.NewReader(b)); !errors.Is(err, errBackup) {
			t.Errorf("%s: verified with %v", what, err)
		}
		for _, target := range []string{dir, fresh} {
			if _, err := Restore(t.Context(), bytes.NewReader(b), target, true); !errors.Is(err, errBackup) {
				t.Errorf("%s: restored with %v", what, err)
			}
		}
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for range 200 {
		at := random.IntN(len(good))
		flipped := bytes.Clone(good)
		flipped[at] ^= 1 << random.IntN(8)
		try(fmt.Sprint("flipped at ", at), flipped)
		try(fmt.Sprint("cut to ", at), good[:at])
	}
	for at := range 48 { // the marker and the sum
		flipped := bytes.Clone(good)
		flipped[len(good)-1-at] ^= 1
		try(fmt.Sprint("flipped at ", at, " from the end"), flipped)
	}
	try("nothing", nil)
	try("one byte more", append(bytes.Clone(good), 0))
	try("twice", append(bytes.Clone(good), good...))
	if after := contents(t, dir); !reflect.DeepEqual(before, after) {
		t.Error("the target was changed")
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made where nothing was: %v", err)
	}
}

// contents returns all files below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprint(info.Mode(), info.ModTime())
			if info.Mode().IsRegular() {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				text += string(b)
			}
			if !info.IsDir() || path != dir {
				found[path] = text
			}
		}
	}
	return found
}

// Row CR-02: nothing is restored over something without force, and nothing at all below a running server.
func TestRestoreOverSomething(t *testing.T) {
	b, info := mustBackup(t, fullStore(t))
	dir := formerFolder(t, map[string][]byte{"000000000.data": formerBytes("former", formerHash(1), 0)})
	restore := func(force bool) error {
		_, err := Restore(t.Context(), bytes.NewReader(b), dir, force)
		return err
	}
	wantErr(t, "over a folder of the former layout", restore(false), ErrNotEmpty)
	s := mustOpen(t, Config{Dir: dir})
	mustInsert(t, s, "mine")
	wantErr(t, "below a running server", restore(true), ErrLocked)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	wantErr(t, "over a store", restore(false), ErrNotEmpty)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Restore(ended, bytes.NewReader(b), dir, true)
	wantErr(t, "ended context", err, context.Canceled)
	if after := contents(t, dir); !reflect.DeepEqual(before, after) {
		t.Error("the target was changed")
	}
	for range 2 { // what an earlier one has left is in nobody's way
		if err := restore(true); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, Config{Dir: dir})
		if s.Count() != info.Clients {
			t.Errorf("%d clients, want %d: those of the former layout do not come back", s.Count(), info.Clients)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "[br]*"))
	if err != nil || len(names) != 2 {
		t.Errorf("left in the folder: %q, %v, want the store and the one before", names, err)
	}
}

// The backup changes between being verified and being read: nothing comes of it.
func TestRestoreOfAChangingBackup(t *testing.T) {
	one, _ := mustBackup(t, fullStore(t))
	other := fullStore(t)
	mustInsert(t, other, "one more")
	two, _ := mustBackup(t, other)
	dir := t.TempDir()
	if _, err := Restore(t.Context(), &changing{next: [][]byte{one, two}}, dir, false); err == nil {
		t.Error("it was restored")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
}

// A changing file has other contents after each Seek.
type changing struct {
	io.Reader
	next [][]byte
}

func (c *changing) Seek(int64, int) (int64, error) {
	c.Reader, c.next = bytes.NewReader(c.next[0]), c.next[1:]
	return 0, nil
}

// Row CR-02: a backup file has mode 0600 whatever the umask, is whole or not there, and replaces none.
func TestBackupFile(t *testing.T) {
	s := fullStore(t)
	path := filepath.Join(t.TempDir(), "backup")
	info, err := s.BackupFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(path)
	if err != nil || stat.Mode().Perm() != 0o600 || stat.Size() != info.Bytes {
		t.Errorf("%v, %v, want %d bytes of mode 600", stat, err, info.Bytes)
	}
	if _, err := s.BackupFile(t.Context(), path); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if again, err := VerifyBackup(file); err != nil || again != info {
		t.Errorf("verified: %+v, %v, want %+v", again, err, info)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.BackupFile(ended, path+"2"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a part of a backup is there: %v", err)
	}
}

func TestBackupEnds(t *testing.T) {
	_, err := OpenMemory().Backup(t.Context(), io.Discard)
	wantErr(t, "in memory", err, ErrNoBackup)
	s := fullStore(t)
	broken := errors.New("broken")
	_, err = s.Backup(t.Context(), writerFunc(func([]byte) (int, error) { return 0, broken }))
	wantErr(t, "a writer that fails", err, broken)
	// Closing the store ends a backup, and waits for that.
	closed := make(chan error)
	_, err = s.Backup(t.Context(), writerFunc(func(b []byte) (int, error) {
		select {
		case <-s.closing:
		default:
			go func() { closed <- s.Close() }()
			<-s.closing
		}
		return len(b), nil
	}))
	wantErr(t, "a store that closes", err, ErrClosed)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	_, err = s.Backup(t.Context(), io.Discard)
	wantErr(t, "a closed store", err, ErrClosed)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// The lists of a backup are of the form of Badger's own, both ways.
func TestBackupFormIsBadgers(t *testing.T) {
	s := fullStore(t)
	b, _ := mustBackup(t, s)
	lists := b[len(backupMagic) : len(b)-40]
	db, err := badger.Open(badgerOptions(t.TempDir(), orDiscard(nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Load(bytes.NewReader(lists), 16); err != nil {
		t.Fatal(err)
	}
	var theirs bytes.Buffer
	if _, err := db.Backup(&theirs, 0); err != nil {
		t.Fatal(err)
	}
	parse := func(lists []byte) map[string]string {
		found := make(map[string]string)
		for len(lists) > 0 {
			size := int(lists[0]) | int(lists[1])<<8 | int(lists[2])<<16
			err := parseList(lists[8:8+size], func(e entry) error {
				found[string(e.key)] = fmt.Sprint(string(e.value), e.expires)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			lists = lists[8+size:]
		}
		return found
	}
	ours, back := parse(lists), parse(theirs.Bytes())
	if len(ours) < 80 || !reflect.DeepEqual(ours, back) {
		t.Errorf("%d entries, %d came back, or they differ", len(ours), len(back))
	}
}

// Row RT-02: no raw key is in a backup, and no hash of a former one.
func TestBackupHoldsNoFormerHashes(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	mustInsert(t, s, "a")
	mustUpdate(t, s, "a", func(c *Client) { c.Hash, c.Epoch = []byte("the present hash"), 2 })
	b, _ := mustBackup(t, s)
	if bytes.Contains(b, testHash) || !bytes.Contains(b, []byte("the present hash")) {
		t.Error("it holds the former hash, or not the present one")
	}
}

func FuzzBackup(f *testing.F) {
	var out bytes.Buffer
	w, err := newBackupWriter(&out)
	if err != nil {
		f.Fatal(err)
	}
	c := testClient("c1")
	c.Epoch, c.Roles = 3, []string{"client"}
	if err := errors.Join(
		w.add(entry{key: accountKey("c1"), value: c.encodeAccount(), version: 1}),
		w.add(entry{key: clientKey("c1"), value: c.encode(), version: 2}),
		w.finish()); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes(), true)
	f.Add([]byte(backupMagic), false)
	f.Add([]byte(strings.Repeat("\xff", 64)), true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) > len(backupMagic)+32 { // as if the sum were right
			var fixed bytes.Buffer
			w, _ := newBackupWriter(&fixed)
			_ = w.write(b[len(backupMagic) : len(b)-32])
			_ = w.put(w.sum.Sum(nil))
			b = fixed.Bytes()
		}
		entries := 0
		info, err := readBackup(bytes.NewReader(b), func(e entry) error {
			entries++
			if len(e.key) > maxEntryBytes || len(e.value) > maxEntryBytes {
				t.Fatalf("an entry of %d and %d bytes", len(e.key), len(e.value))
			}
			return nil
		})
		if err == nil && (info.Bytes != int64(len(b)) || info.Clients+info.CallIDs > entries) {
			t.Fatalf("%+v of %d bytes and %d entries", info, len(b), entries)
		}
		if err != nil && !errors.Is(err, errBackup) {
			t.Fatal(err)
		}
	})
}
