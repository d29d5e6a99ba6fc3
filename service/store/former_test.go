package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// formerBytes builds a record as protocol section 3.7 lays it out.
func formerBytes(key, value string, expiry uint64) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(key)))
	b = binary.BigEndian.AppendUint64(b, uint64(len(value)))
	b = append(append(b, key...), value...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(value)))
	return binary.BigEndian.AppendUint64(b, expiry)
}

func formerHash(n int) string { return fmt.Sprintf("$2a$10$%053d", n) }

func formerFolder(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"index", "ttl_index", "meta.json", "config.json", "lock"} {
		if _, ok := files[name]; !ok {
			files[name] = []byte("other")
		}
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// snapshot returns what is in dir, but for our own sub-folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if entry.Name() == folderName {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		found[path] = fmt.Sprint(info.Mode(), info.ModTime(), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFormerClientsAreTakenOverOnce(t *testing.T) {
	torn := formerBytes("torn", formerHash(9), 0)
	damaged := formerBytes("damaged", formerHash(8), 0)
	damaged[30] ^= 1
	dir := formerFolder(t, map[string][]byte{
		"000000000.data": bytes.Join([][]byte{
			formerBytes("kept", formerHash(1), 0),
			formerBytes("replaced", formerHash(2), 0),
			formerBytes("deleted", formerHash(3), 0),
			formerBytes("damaged", formerHash(7), 0),
			formerBytes("expired", formerHash(3), 1_000_000_000),
			formerBytes("lasting", formerHash(4), 40_000_000_000),
			formerBytes("no hash", "secret", 0),
			formerBytes("bad\xff", formerHash(5), 0),
		}, nil),
		"000000001.data": bytes.Join([][]byte{
			formerBytes("replaced", formerHash(22), 0),
			formerBytes("deleted", "", 0),
			damaged,
			formerBytes("later", formerHash(6), 0),
			torn[:len(torn)-3],
		}, nil),
		"12.data": []byte("not of the layout"),
	})
	before := snapshot(t, dir)
	s := mustOpen(t, Config{Dir: dir})
	got := make(map[string]string)
	for id, client := range s.clients {
		got[id] = string(client.Hash)
	}
	want := map[string]string{
		"kept": formerHash(1), "replaced": formerHash(22), "lasting": formerHash(4), "later": formerHash(6),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("taken over %v, want %v", got, want)
	}
	if after := snapshot(t, dir); !reflect.DeepEqual(before, after) {
		t.Error("the former folder was changed")
	}

	// Removed and re-registered clients stay what they became.
	if err := s.Delete(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "later"); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, s, "later")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, Config{Dir: dir})
	_, err := again.Get("kept")
	wantErr(t, "get of a removed client", err, ErrNotFound)
	if got, err := again.Get("later"); err != nil || !bytes.Equal(got.Hash, testHash) {
		t.Errorf("re-registered client: %v, %v", got, err)
	}
	if n := again.Count(); n != 3 {
		t.Errorf("count %d, want 3", n)
	}
}

func TestFormerManyClients(t *testing.T) {
	var data []byte
	const n = 3*importBatch + 1
	for i := range n {
		data = append(data, formerBytes(fmt.Sprint("client-", i), formerHash(i), 0)...)
	}
	dir := formerFolder(t, map[string][]byte{"000000007.data": data})
	_, err := Open(Config{Dir: dir, MaxClients: n - 1}, nil)
	wantErr(t, "more clients than allowed", err, ErrFull)
	s := mustOpen(t, Config{Dir: dir})
	for i := range n {
		if got, err := s.Get(fmt.Sprint("client-", i)); err != nil || string(got.Hash) != formerHash(i) {
			t.Fatalf("client %d: %v, %v", i, got, err)
		}
	}
}

func TestFormerServerStillRuns(t *testing.T) {
	dir := formerFolder(t, map[string][]byte{"000000000.data": formerBytes("a", formerHash(1), 0)})
	lock, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Dir: dir}, nil)
	wantErr(t, "open beside the former server", err, ErrLocked)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "lock")) {
		t.Errorf("the error does not name the lock: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if s := mustOpen(t, Config{Dir: dir}); s.Count() != 1 {
		t.Errorf("count %d, want 1", s.Count())
	}
}

func TestFormerLengthsThatCannotBe(t *testing.T) {
	good := formerBytes("a", formerHash(1), 0)
	for name, tail := range map[string][]byte{
		"key of 65 bytes":     formerBytes(strings.Repeat("k", 65), "v", 0),
		"key of 4 GiB":        bytes.Repeat([]byte{0xff}, 40),
		"value of 64 KiB + 1": formerBytes("k", strings.Repeat("v", formerMaxValue+1), 0),
		"no key":              formerBytes("", "v", 0),
		"zeros, then data":    append(make([]byte, 5000), 1),
	} {
		dir := formerFolder(t, map[string][]byte{"000000003.data": append(bytes.Clone(good), tail...)})
		_, err := Open(Config{Dir: dir}, nil)
		wantErr(t, name, err, ErrDamaged)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("000000003.data at offset %d", len(good))) {
			t.Errorf("%s: the error does not name file and offset: %v", name, err)
		}
	}
	dir := formerFolder(t, map[string][]byte{"000000003.data": append(bytes.Clone(good), make([]byte, 9000)...)})
	if s := mustOpen(t, Config{Dir: dir}); s.Count() != 1 {
		t.Errorf("zeros behind the last record: %d clients, want 1", s.Count())
	}
}

func FuzzFormer(f *testing.F) {
	f.Add(append(formerBytes("a", formerHash(1), 0), formerBytes("a", "", 0)...))
	f.Add(formerBytes("b", formerHash(2), 99)[:50])
	f.Add(append(formerBytes("c", formerHash(3), 0), make([]byte, 100)...))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := formerReader{now: time.Unix(100, 0), keys: make(map[string]Client), maxKeys: 8, log: orDiscard(nil)}
		err := r.read("file", bytes.NewReader(b), time.Unix(1, 0))
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		for id, client := range r.keys {
			if id != client.ID || client.check() != nil || len(client.Hash) != formerHashBytes {
				t.Fatalf("client %+v under %q", client, id)
			}
			// Nothing is made up: the record is in the input, whole.
			if !bytes.Contains(b, append([]byte(id), client.Hash...)) {
				t.Fatalf("client %q is not in the input", id)
			}
		}
	})
}
