// Command lint checks what the compiler does not: formatting, vet, that imports point one way, and that
// every row of docs/security.md has a test, and that what follows from code is up to date: the tables of
// docs/operations.md, and the dashboard.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// forbidden lists, for packages of ours, the imports they must not have, by prefix. It is the
// last column of the package map in docs/architecture.md.
var forbidden = map[string][]string{
	"rtcd/config":                {"rtcd/"},
	"rtcd/service":               {"github.com/pion", "github.com/gorilla", "github.com/dgraph-io"},
	"rtcd/service/handover":      {"rtcd/"},
	"rtcd/service/logging":       {"rtcd/"},
	"rtcd/service/msgpack":       {"rtcd/"},
	"rtcd/service/store":         {"rtcd/"},
	"rtcd/service/audit":         {"rtcd/"},
	"rtcd/service/feed":          {"rtcd/"},
	"rtcd/service/policy":        {"rtcd/"},
	"rtcd/service/access":        {"rtcd/service/auth", "rtcd/service/store", "rtcd/service/rtc", "rtcd/config", "rtcd/service/api/ws", "github.com/pion"},
	"rtcd/service/metrics":       {"rtcd/"},
	"rtcd/service/doctor":        {"rtcd/service"},
	"rtcd/service/report":        {"rtcd/", "github.com/"},
	"rtcd/service/auth":          {"rtcd/service/api", "rtcd/service/rtc", "rtcd/service/store", "rtcd/config"},
	"rtcd/service/api":           {"github.com/pion", "rtcd/service/store", "rtcd/service/rtc", "rtcd/service/auth", "rtcd/config"},
	"rtcd/service/api/wire":      {"rtcd/service/api", "rtcd/service/rtc", "rtcd/config", "github.com/pion"},
	"rtcd/service/api/ws":        {"github.com/pion", "rtcd/service/auth", "rtcd/service/store", "rtcd/service/rtc", "rtcd/config"},
	"rtcd/service/rtc":           {"rtcd/service/auth", "rtcd/service/store", "rtcd/config", "rtcd/service/api/ws"},
	"rtcd/service/rtc/channel":   {"rtcd/service/api", "rtcd/service/rtc/", "github.com/pion"},
	"rtcd/service/rtc/forward":   {"github.com/pion/webrtc", "github.com/pion/ice", "log/slog", "github.com/prometheus", "rtcd/service/api", "rtcd/service/metrics"},
	"rtcd/service/rtc/netio":     {"rtcd/", "github.com/pion/webrtc"},
	"rtcd/service/rtc/negotiate": {"rtcd/", "github.com/pion"},
	"rtcd/service/rtc/rewrite":   {"rtcd/", "github.com/pion"},
	"rtcd/service/rtc/speech":    {"rtcd/", "github.com/pion"},
	"rtcd/service/rtc/codec":     {"rtcd/", "github.com/pion"},
	"rtcd/service/rtc/allocate":  {"rtcd/", "github.com/pion"},
	"rtcd/service/rtc/estimate":  {"rtcd/", "github.com/pion"},
	"rtcd/service/rtc/engine":    {"rtcd/service/api", "rtcd/service/auth", "rtcd/service/store", "rtcd/config", "rtcd/service/metrics"},
	"rtcd/client":                {"rtcd/service/auth", "rtcd/service/store", "rtcd/service/rtc", "rtcd/config", "rtcd/service/api/ws"},
}

func main() {
	faults := append(format(), imports()...)
	if out, err := exec.Command("go", "vet", "./...").CombinedOutput(); err != nil {
		faults = append(faults, "go vet:\n"+string(out))
	}
	if out, err := exec.Command("go", "run", "./build/securitytable", "-check").CombinedOutput(); err != nil {
		faults = append(faults, string(out))
	}
	for _, args := range [][]string{{"run", "./build/docs"}, {"run", "./build/grafana", "-check"}} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			faults = append(faults, string(out))
		}
	}
	for _, f := range faults {
		fmt.Println(f)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
	fmt.Println("lint: formatting, imports and vet are fine")
}

// format names the files that gofmt would change.
func format() []string {
	out, err := exec.Command("gofmt", "-l", ".").Output()
	if err != nil {
		return []string{"gofmt: " + err.Error()}
	}
	var faults []string
	for _, f := range strings.Fields(string(out)) {
		faults = append(faults, filepath.ToSlash(f)+": not formatted")
	}
	return faults
}

// imports names the arrows that point the wrong way.
func imports() []string {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return []string{"go list: " + err.Error()}
	}
	var faults []string
	dec := json.NewDecoder(out)
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return append(faults, "go list: "+err.Error())
		}
		for _, i := range p.Imports {
			if strings.Contains(i, "mattermost") {
				faults = append(faults, p.ImportPath+" imports "+i+", which the licence of this project forbids")
			}
			for _, bad := range forbidden[p.ImportPath] {
				if strings.HasPrefix(i+"/", bad+"/") || strings.HasPrefix(i, bad) && strings.HasSuffix(bad, "/") {
					if !allowed(p.ImportPath, i) {
						faults = append(faults, p.ImportPath+" must not import "+i)
					}
				}
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		faults = append(faults, "go list: "+err.Error())
	}
	return faults
}

// allowed are leaves below what is otherwise forbidden.
func allowed(pkg, imported string) bool {
	return pkg == "rtcd/service/api/wire" && imported == "rtcd/service/msgpack" ||
		imported == "rtcd/service/api/ws" && pkg == "rtcd/service/api"
}
