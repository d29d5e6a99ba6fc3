package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		os.Exit(runChild(mode))
	}
	goleak.VerifyTestMain(m)
}

var testHash = []byte("$2a$10$" + strings.Repeat("h", 53))

func testClient(id string) Client {
	return Client{ID: id, Hash: testHash, Created: time.Unix(1_700_000_000, 7).UTC()}
}

func mustOpen(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustInsert(t *testing.T, s *Store, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Insert(t.Context(), testClient(id)); err != nil {
			t.Fatalf("insert %q: %v", id, err)
		}
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// Both modes behave alike.
func TestOperations(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) *Store{
		"memory": func(*testing.T) *Store { return OpenMemory() },
		"disk":   func(t *testing.T) *Store { return mustOpen(t, Config{Dir: t.TempDir()}) },
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := open(t), t.Context()
			_, err := s.Get("a")
			wantErr(t, "get missing", err, ErrNotFound)
			mustInsert(t, s, "a", "b:ü")
			wantErr(t, "insert again", s.Insert(ctx, testClient("a")), ErrConflict)
			got, err := s.Get("b:ü")
			if want := testClient("b:ü"); err != nil || got.ID != want.ID || !bytes.Equal(got.Hash, want.Hash) || !got.Created.Equal(want.Created) {
				t.Errorf("get: %+v, %v, want %+v", got, err, want)
			}
			got.Hash[0] = 'X'
			if again, _ := s.Get("b:ü"); !bytes.Equal(again.Hash, testHash) {
				t.Error("a caller's change of a returned hash reached the store")
			}
			wantErr(t, "update missing", s.UpdateHash(ctx, "c", testHash, testHash), ErrNotFound)
			wantErr(t, "update from another hash", s.UpdateHash(ctx, "a", []byte("x"), []byte("y")), ErrConflict)
			if err := s.UpdateHash(ctx, "a", testHash, []byte("new")); err != nil {
				t.Error(err)
			}
			if got, _ := s.Get("a"); string(got.Hash) != "new" {
				t.Errorf("hash %q after the update", got.Hash)
			}
			if n := s.Count(); n != 2 {
				t.Errorf("count %d, want 2", n)
			}
			if err := s.Delete(ctx, "a"); err != nil {
				t.Error(err)
			}
			wantErr(t, "delete again", s.Delete(ctx, "a"), ErrNotFound)
			mustInsert(t, s, "a")
			ended, cancel := context.WithCancel(ctx)
			cancel()
			wantErr(t, "ended context", s.Delete(ended, "a"), context.Canceled)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			_, err = s.Get("a")
			wantErr(t, "get after close", err, ErrClosed)
			wantErr(t, "insert after close", s.Insert(ctx, testClient("z")), ErrClosed)
			if err := s.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
		})
	}
}

func TestInsertRefusesWhatCannotBeStored(t *testing.T) {
	s := OpenMemory()
	for name, c := range map[string]Client{
		"empty id":  {Hash: testHash},
		"65 bytes":  {ID: strings.Repeat("x", 65), Hash: testHash},
		"not UTF-8": {ID: "a\xff", Hash: testHash},
		"no hash":   {ID: "a"},
		"long hash": {ID: "a", Hash: make([]byte, 256)},
	} {
		wantErr(t, name, s.Insert(t.Context(), c), ErrInvalid)
	}
	mustInsert(t, s, strings.Repeat("x", 64))
	if err := s.Insert(t.Context(), Client{ID: "no time", Hash: testHash}); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Get("no time"); time.Since(got.Created).Abs() > time.Minute {
		t.Errorf("created %v, want now", got.Created)
	}
	if err := s.Delete(t.Context(), "no time"); err != nil {
		t.Fatal(err)
	}
	if s.Count() != 1 {
		t.Errorf("count %d, want 1", s.Count())
	}
}

func TestInsertCap(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir(), MaxClients: 3})
	mustInsert(t, s, "1", "2", "3")
	wantErr(t, "insert above the cap", s.Insert(t.Context(), testClient("4")), ErrFull)
	wantErr(t, "taken id at the cap", s.Insert(t.Context(), testClient("1")), ErrConflict)
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, s, "4")
}

func TestRacingInserts(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	const racers = 32
	for round := range 5 {
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		winner := make(chan string, racers)
		for i := range racers {
			wg.Go(func() {
				<-start
				c := testClient(fmt.Sprint("id", round))
				c.Hash = []byte(fmt.Sprint("hash", i))
				switch err := s.Insert(t.Context(), c); {
				case err == nil:
					won.Add(1)
					winner <- string(c.Hash)
				case errors.Is(err, ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 || lost.Load() != racers-1 {
			t.Fatalf("%d inserts succeeded and %d conflicted, want 1 and %d", won.Load(), lost.Load(), racers-1)
		}
		if got, err := s.Get(fmt.Sprint("id", round)); err != nil || string(got.Hash) != <-winner {
			t.Errorf("the stored hash is not the winner's: %v, %v", got, err)
		}
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	want := make(map[string]string)
	// More openings than Badger tolerates tables in its first level.
	for round := range 12 {
		s := mustOpen(t, Config{Dir: dir})
		if s.Count() != len(want) {
			t.Fatalf("opening %d: %d clients, want %d", round, s.Count(), len(want))
		}
		for id, hash := range want {
			if got, err := s.Get(id); err != nil || string(got.Hash) != hash {
				t.Fatalf("opening %d: get %q: %v, %v", round, id, got, err)
			}
		}
		for i := range 5 {
			id := fmt.Sprint(round, "-", i)
			mustInsert(t, s, id)
			want[id] = string(testHash)
		}
		if round > 0 {
			old := fmt.Sprint(round-1, "-0")
			if err := s.Delete(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			delete(want, old)
			changed := fmt.Sprint(round-1, "-1")
			if err := s.UpdateHash(t.Context(), changed, testHash, []byte("changed")); err != nil {
				t.Fatal(err)
			}
			want[changed] = "changed"
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The write-ahead file fills up and is rotated: every new file is prepared like the first.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	mustInsert(t, s, "a")
	hash := bytes.Repeat([]byte("h"), maxHashBytes)
	old := testHash
	walFiles := func() (n int) {
		for path := range s.folder.settled {
			if filepath.Ext(path) == ".mem" {
				n++
			}
		}
		return n
	}
	for i := 0; walFiles() < 3; i++ {
		if i > 20_000 {
			t.Fatal("the write-ahead file was never rotated")
		}
		hash = append(hash[:0:0], hash...)
		hash[i%maxHashBytes]++
		if err := s.UpdateHash(t.Context(), "a", old, hash); err != nil {
			t.Fatal(err)
		}
		old = hash
	}
	checkModes(t, filepath.Join(dir, folderName))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, Config{Dir: dir})
	if got, err := again.Get("a"); err != nil || !bytes.Equal(got.Hash, hash) {
		t.Errorf("after rotation: %v, %v", got, err)
	}
}

func checkModes(t *testing.T, root string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return nil // removed by Badger meanwhile
		}
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
		files++
		return nil
	})
	if err != nil || files < 6 {
		t.Errorf("looked at %d files, error %v", files, err)
	}
}

func TestPermissionsWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o177} {
		old := unix.Umask(mask)
		dir := filepath.Join(t.TempDir(), fmt.Sprintf("mask-%o", mask))
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			err = os.Chmod(dir, 0o700)
		}
		s, openErr := Open(Config{Dir: dir}, nil)
		unix.Umask(old)
		if err != nil || openErr != nil {
			t.Fatal(err, openErr)
		}
		mustInsert(t, s, "a")
		checkModes(t, filepath.Join(dir, folderName))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		checkModes(t, filepath.Join(dir, folderName))
	}
	fresh := filepath.Join(t.TempDir(), "made", "by", "us")
	mustOpen(t, Config{Dir: fresh})
	if info, err := os.Stat(fresh); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("new data_source: %v, %v, want mode 700", info.Mode(), err)
	}
}

func TestSecondOpenerIsTurnedAway(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	_, err := Open(Config{Dir: dir}, nil)
	wantErr(t, "second opener", err, ErrLocked)
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the error names neither folder nor holder: %v", err)
	}
	mustInsert(t, s, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s := mustOpen(t, Config{Dir: dir}); s.Count() != 1 {
		t.Errorf("count %d, want 1", s.Count())
	}
}

func TestOpenNamesThePathThatFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(Config{Dir: path}, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("open %s: %v, want an error that names it", path, err)
		}
	}
	if _, err := Open(Config{}, nil); err == nil {
		t.Error("an empty path was accepted")
	}
}

func TestRecordForm(t *testing.T) {
	want := testClient("c1")
	b := want.encode()
	got, err := decodeClient("c1", b)
	if err != nil || got.ID != want.ID || !bytes.Equal(got.Hash, want.Hash) || !got.Created.Equal(want.Created) {
		t.Fatalf("decoded %+v, %v, want %+v", got, err, want)
	}
	if _, err := decodeClient("c2", b); err == nil {
		t.Error("the hash of one client was accepted for another")
	}
	for i := range b {
		broken := slices.Clone(b)
		broken[i] ^= 0x10
		if _, err := decodeClient("c1", broken); err == nil {
			t.Errorf("a flipped bit in byte %d was accepted", i)
		}
		if _, err := decodeClient("c1", b[:i]); err == nil {
			t.Errorf("a record cut to %d bytes was accepted", i)
		}
	}
}

// After a failed write nothing more is written, and reads go on.
func TestReadOnlyAfterAFailedWrite(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	mustInsert(t, s, "a")
	if err := s.db.Close(); err != nil { // every later commit fails
		t.Fatal(err)
	}
	wantErr(t, "failing insert", s.Insert(t.Context(), testClient("b")), ErrReadOnly)
	wantErr(t, "insert after it", s.Insert(t.Context(), testClient("c")), ErrReadOnly)
	if _, err := s.Get("a"); err != nil {
		t.Error(err)
	}
	if n := s.Count(); n != 1 {
		t.Errorf("count %d, want 1", n)
	}
}
