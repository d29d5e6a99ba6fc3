// Command deadlock runs tests with mutexes that watch over each other: github.com/sasha-s/go-deadlock
// reports locks that are taken in two orders, or twice. It does not watch how long a lock is waited for:
// its timer cannot cross the bubbles of testing/synctest, and a test that hangs runs out of time anyway.
//
// No source changes for it. The files of the packages are rewritten into an overlay (see go help
// build, -overlay), in which sync.Mutex and sync.RWMutex are those of go-deadlock.
//
//	go run ./build/deadlock [packages]    default: ./service/... ./client/...
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	_ "github.com/sasha-s/go-deadlock" // for the files of the overlay
)

const watched = "github.com/sasha-s/go-deadlock"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "deadlock:", err)
		os.Exit(1)
	}
	fmt.Println("deadlock: no lock was taken in two orders, or twice")
}

func run(packages []string) error {
	if len(packages) == 0 {
		packages = []string{"./service/...", "./client/..."}
	}
	dir, err := os.MkdirTemp("", "rtcd-deadlock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := makeOverlay(dir, packages)
	if err != nil {
		return err
	}
	// What counts allocations would count those of the watching mutexes.
	args := append([]string{"test", "-overlay=" + overlay, "-race", "-shuffle=on", "-timeout=30m", "-skip=Alloc|Cheap"}, packages...)
	var out bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Stdout = io.MultiWriter(os.Stdout, &out)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	if strings.Contains(out.String(), "POTENTIAL DEADLOCK") {
		return fmt.Errorf("a potential deadlock was reported")
	}
	return nil
}

// makeOverlay rewrites the files of the packages and returns the file that says which stands for which.
func makeOverlay(dir string, packages []string) (string, error) {
	files, err := sources(packages)
	if err != nil {
		return "", err
	}
	replace := make(map[string]string)
	quiet := make(map[string]string) // package name by folder
	for i, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		out, pkg, changed, err := rewrite(file, src)
		if err != nil {
			return "", err
		}
		if !changed {
			continue
		}
		to := filepath.Join(dir, strconv.Itoa(i)+"_"+filepath.Base(file))
		if err := os.WriteFile(to, out, 0o600); err != nil {
			return "", err
		}
		replace[file], quiet[filepath.Dir(file)] = to, pkg
	}
	for folder, pkg := range quiet {
		to := filepath.Join(dir, strconv.Itoa(len(replace))+"_init.go")
		text := fmt.Sprintf("package %s\n\nimport %q\n\nfunc init() { deadlock.Opts.DeadlockTimeout = 0 }\n", pkg, watched)
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(folder, "deadlock_init.go")] = to
	}
	if len(replace) == 0 {
		return "", fmt.Errorf("no file of %q has a mutex", packages)
	}
	fmt.Printf("deadlock: mutexes of %d files are watched\n", len(replace)-len(quiet))
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o600)
}

// sources lists the files of packages, without those of tests.
func sources(packages []string) ([]string, error) {
	args := append([]string{"list", "-f", `{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}`}, packages...)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// rewrite puts the watching mutexes in the place of those of package sync.
func rewrite(name string, src []byte) (out []byte, pkg string, changed bool, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments)
	if err != nil {
		return nil, "", false, err
	}
	left := false // other uses of package sync
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		of, ok := sel.X.(*ast.Ident)
		if !ok || of.Name != "sync" || of.Obj != nil {
			return true
		}
		if sel.Sel.Name == "Mutex" || sel.Sel.Name == "RWMutex" {
			of.Name, changed = "deadlock", true
		} else {
			left = true
		}
		return true
	})
	if !changed {
		return nil, "", false, nil
	}
	for _, imp := range file.Imports {
		if imp.Path.Value != `"sync"` {
			continue
		}
		if imp.Path.Value = strconv.Quote(watched); left {
			// One line for both: the printer parts what a semicolon parts.
			imp.Path.Value = `"sync"; ` + imp.Path.Value
		}
		imp.EndPos = 0
	}
	var buf bytes.Buffer
	if err := format.Node(&buf, fset, file); err != nil {
		return nil, "", false, err
	}
	return buf.Bytes(), file.Name.Name, true, nil
}
