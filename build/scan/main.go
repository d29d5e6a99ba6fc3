// Command scan looks for faults that tests do not find: staticcheck, gosec, and known vulnerabilities
// that our code can reach.
//
// The tools and the database of vulnerabilities come from the Go module proxy, at the versions below.
// The database is a module too (golang.org/x/vulndb), so no other host is asked.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// What is run, by module and version.
const (
	staticcheck = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"
	gosec       = "github.com/securego/gosec/v2/cmd/gosec@v2.30.0"
	govulncheck = "golang.org/x/vuln/cmd/govulncheck@v1.1.4"
	vulndb      = "golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018"
)

// product is what operators and backends run; the rest of the tree only builds and tests it.
var product = []string{"./cmd/...", "./client/...", "./config/...", "./service/..."}

func main() {
	only := flag.String("only", "", "run only this one: staticcheck, gosec, vuln")
	flag.Parse()
	os.Exit(run(*only))
}

func run(only string) int {
	tools, err := os.MkdirTemp("", "rtcd-scan-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "scan:", err)
		return 1
	}
	defer os.RemoveAll(tools)
	failed := false
	for _, s := range []struct {
		name string
		scan func(tools string) ([]string, error)
	}{{"staticcheck", runStaticcheck}, {"gosec", runGosec}, {"vuln", runVuln}} {
		if only != "" && only != s.name {
			continue
		}
		faults, err := s.scan(tools)
		if err != nil {
			faults = append(faults, err.Error())
		}
		for _, f := range faults {
			fmt.Printf("%s: %s\n", s.name, f)
		}
		if len(faults) > 0 {
			failed = true
		} else {
			fmt.Printf("%s: nothing found\n", s.name)
		}
	}
	if failed {
		return 1
	}
	return 0
}

// install builds a tool and returns where it is.
func install(dir, tool string) (string, error) {
	cmd := exec.Command("go", "install", tool)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", tool, err, out)
	}
	path, _, _ := strings.Cut(tool, "@")
	return filepath.Join(dir, filepath.Base(path)), nil
}

// runStaticcheck checks everything, tests included.
func runStaticcheck(tools string) ([]string, error) {
	bin, err := install(tools, staticcheck)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(bin, "./...").CombinedOutput()
	return complaints(out, err)
}

// complaints are the lines of a tool that fails when it has some.
func complaints(out []byte, err error) ([]string, error) {
	text := strings.TrimSpace(string(out))
	if text == "" {
		return nil, err
	}
	return strings.Split(text, "\n"), nil
}

// runGosec checks the product for what gosec takes for unsafe, but for the exceptions.
func runGosec(tools string) ([]string, error) {
	bin, err := install(tools, gosec)
	if err != nil {
		return nil, err
	}
	report := filepath.Join(tools, "gosec.json")
	args := append([]string{"-quiet", "-no-fail", "-fmt=json", "-out=" + report}, product...)
	if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return gosecFaults(data, root)
}

// gosecFaults returns what of a report is no exception, and exceptions that nothing needs any more.
func gosecFaults(data []byte, root string) ([]string, error) {
	var report struct {
		Issues []struct {
			Rule    string `json:"rule_id"`
			Details string `json:"details"`
			File    string `json:"file"`
			Line    string `json:"line"`
		}
		Stats struct{ Files int }
	}
	if err := json.Unmarshal(data, &report); err != nil {
		return nil, fmt.Errorf("report of gosec: %w", err)
	}
	if report.Stats.Files == 0 {
		return nil, errors.New("gosec looked at no file")
	}
	var faults []string
	used := make([]bool, len(exceptions))
	for _, issue := range report.Issues {
		file, err := filepath.Rel(root, issue.File)
		if err != nil {
			file = issue.File
		}
		i := exceptionOf(issue.Rule, filepath.ToSlash(file))
		if i < 0 {
			faults = append(faults, fmt.Sprintf("%s:%s: %s (%s)", file, issue.Line, issue.Details, issue.Rule))
			continue
		}
		used[i] = true
	}
	for i, e := range exceptions {
		if !used[i] {
			faults = append(faults, fmt.Sprintf("the exception %s in %q is not needed any more", e.rule, e.path))
		}
	}
	return faults, nil
}

// runVuln looks for known vulnerabilities in code that the product can reach. Those of the standard
// library are shown but do not fail: they go with the toolchain, which is the machine's.
func runVuln(tools string) ([]string, error) {
	bin, err := install(tools, govulncheck)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "mod", "download", "-json", vulndb)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &module); jerr != nil || module.Dir == "" {
		return nil, fmt.Errorf("download %s: %w %s", vulndb, errors.Join(err, jerr), module.Error)
	}
	db := "file://" + filepath.ToSlash(filepath.Join(module.Dir, "data", "osv"))
	var stderr bytes.Buffer
	check := exec.Command(bin, append([]string{"-format=json", "-db=" + db}, product...)...)
	check.Stderr = &stderr
	out, err = check.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	v, err := readVulns(bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	for _, line := range v.toolchain {
		fmt.Println("vuln: SHORTFALL of this machine's toolchain:", line)
	}
	fmt.Printf("vuln: %d known vulnerabilities looked for, %d called in modules, %d in the standard library\n",
		v.known, len(v.modules), len(v.toolchain))
	return v.modules, nil
}

// vulns are the vulnerabilities that are called.
type vulns struct {
	known              int // to the database, of the modules and packages in use
	modules, toolchain []string
}

// readVulns reads the stream of messages of govulncheck -format=json.
func readVulns(r io.Reader) (vulns, error) {
	var v vulns
	seen := make(map[string]bool)
	dec := json.NewDecoder(r)
	for {
		var m struct {
			OSV *struct {
				ID string `json:"id"`
			} `json:"osv"`
			Finding *struct {
				OSV   string `json:"osv"`
				Fixed string `json:"fixed_version"`
				Trace []struct {
					Module, Version, Package, Function string
				}
			}
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return vulns{}, fmt.Errorf("report of govulncheck: %w", err)
		}
		if m.OSV != nil {
			v.known++
		}
		f := m.Finding
		if f == nil || len(f.Trace) == 0 || f.Trace[0].Function == "" || seen[f.OSV] {
			continue // not called
		}
		seen[f.OSV] = true
		at := f.Trace[0]
		line := fmt.Sprintf("%s: %s@%s is called, fixed in %s", f.OSV, at.Package, at.Version, f.Fixed)
		if at.Module == "stdlib" {
			v.toolchain = append(v.toolchain, line)
		} else {
			v.modules = append(v.modules, line)
		}
	}
	if v.known == 0 {
		return vulns{}, errors.New("govulncheck read no database")
	}
	return v, nil
}
