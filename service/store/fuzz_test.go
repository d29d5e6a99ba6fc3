package store

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// FuzzStoreOpen opens folders that were cut or changed somewhere, in a process of their own: it opens
// with the hashes that were registered, or is refused with the name of the file (fault F3).
func FuzzStoreOpen(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	kept := f.TempDir()
	var once sync.Once
	f.Fuzz(func(t *testing.T, seed uint64) {
		once.Do(func() {
			closed, killed := makeFolders(t)
			for name, dir := range map[string]string{"closed": closed, "killed": killed} {
				if err := os.CopyFS(filepath.Join(kept, name), os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			}
		})
		random := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(kept, []string{"closed", "killed"}[random.IntN(2)]))); err != nil {
			t.Fatal(err)
		}
		what := damage(t, random, filepath.Join(dir, folderName, dbName))
		out, err := childCommand(t, "list", dir).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			checkListed(t, what, string(out))
		case errors.As(err, &exit) && exit.ExitCode() == childRefused && strings.Contains(string(out), what.file):
		default:
			t.Errorf("%s: child ended with %v and said %s", what, err, out)
		}
	})
}
