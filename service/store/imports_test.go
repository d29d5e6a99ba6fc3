package store

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Row WX-21: nothing but the wiring reaches the store: neither media, nor the API, nor authentication, which
// get no more of it than the interfaces they declare.
func TestWhoImportsTheStore(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || filepath.Dir(path) == ".." {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			badger := strings.HasPrefix(name, "github.com/dgraph-io/badger")
			if name == "rtcd/service/store" || badger && filepath.Base(filepath.Dir(path)) != "store" {
				t.Errorf("%s imports %s", path, name)
			}
		}
		return nil
	})
	if err != nil || seen < 50 {
		t.Errorf("looked at %d files, %v", seen, err)
	}
}
