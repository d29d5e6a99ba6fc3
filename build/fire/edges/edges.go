// Package edges finds the tests that put limits to the test: each limit of package metrics, its key, and
// the tests that reach it and go beyond.
//
// A test is one of a limit if it names the limit, by its constant or as it is counted, if its doc comment
// has a line that says so,
//
//	// Limits: tickets, tickets_per_client.
//
// or if it is one of elsewhere: tests of packages that have limits without naming them. What a test does
// at the edge is not looked at.
package edges

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rtcd/service/metrics"
)

// Fire is the folder of a test that is a scenario of command fire.
const Fire = "build/fire"

// Edge is a limit and the tests of it, in order. Each is a folder, a space and a name.
type Edge struct {
	metrics.LimitInfo
	Tests []string
}

// Find looks for the tests of all limits in the packages below folders of root.
func Find(root string, folders ...string) ([]Edge, error) {
	f := &finder{limits: make(map[string][]string), tests: make(map[string]map[string]bool), all: make(map[string]bool)}
	var tests []source
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			if strings.HasSuffix(path, "_test.go") {
				dir, err := filepath.Rel(root, filepath.Dir(path))
				if dir != "service/metrics" { // whose tests are about counting alone
					tests = append(tests, source{dir, file})
				}
				return err
			}
			f.declared(file)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for tests of limits: %w", err)
		}
	}
	for _, s := range tests {
		f.read(s)
	}
	for label, tests := range elsewhere {
		for _, test := range tests {
			if !f.all[test] && !strings.HasPrefix(test, Fire+" ") {
				return nil, fmt.Errorf("look for tests of limits: there is no %s, which should be of %s", test, label)
			}
			f.found(label, test)
		}
	}
	var out []Edge
	for _, l := range metrics.Limits() {
		out = append(out, Edge{LimitInfo: l, Tests: slices.Sorted(maps.Keys(f.tests[string(l.Name)]))})
	}
	return out, nil
}

// source is a file of tests.
type source struct {
	dir  string
	file *ast.File
}

// finder has what was found so far.
type finder struct {
	limits map[string][]string        // labels by the name of the constant, which packages may share
	tests  map[string]map[string]bool // tests by label
	all    map[string]bool            // all tests
}

// declared takes the constants that are labels of limits.
func (f *finder) declared(file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != len(spec.Values) || !strings.HasPrefix(strings.ToLower(spec.Names[0].Name), "limit") {
			return true
		}
		for i, name := range spec.Names {
			if label, ok := text(spec.Values[i]); ok {
				f.limits[name.Name] = append(f.limits[name.Name], label)
			}
		}
		return true
	})
}

// read takes the tests of a file.
func (f *finder) read(s source) {
	for _, d := range s.file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Body == nil || !strings.HasPrefix(fn.Name.Name, "Test") {
			continue
		}
		name := s.dir + " " + fn.Name.Name
		f.all[name] = true
		for _, label := range said(fn.Doc.Text()) {
			f.found(label, name)
		}
		var literals []string
		counts := false // looks at counts of hits
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if labels := f.limits[n.Name]; len(labels) == 1 {
					f.found(labels[0], name)
				}
				counts = counts || strings.Contains(strings.ToLower(n.Name), "limit")
			case *ast.BasicLit:
				if t, ok := text(n); ok {
					counts = counts || strings.Contains(t, "limit_hits_total")
					if _, label, ok := strings.Cut(t, `limit="`); ok {
						t, _, _ = strings.Cut(label, `"`)
					}
					literals = append(literals, t)
				}
			}
			return true
		})
		for _, l := range literals {
			// Labels of one word are words that mean other things, too.
			if counts || strings.Contains(l, "_") {
				f.found(l, name)
			}
		}
	}
}

func (f *finder) found(label, test string) {
	if f.tests[label] == nil {
		f.tests[label] = make(map[string]bool)
	}
	f.tests[label][test] = true
}

// said returns the limits that a doc comment names.
func said(doc string) (labels []string) {
	for line := range strings.Lines(doc) {
		if list, ok := strings.CutPrefix(line, "Limits: "); ok {
			for label := range strings.SplitSeq(strings.Trim(list, ".\n"), ",") {
				labels = append(labels, strings.TrimSpace(label))
			}
		}
	}
	return labels
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// elsewhere are tests that do not name the limits that they are about.
var elsewhere = map[string][]string{
	"api_body":                 {"service/api TestLargeBodiesCostNoMemory", "service/api TestBadInput"},
	"bcrypt_logins":            {"service/auth TestBudgetQueue"},
	"bcrypt_registrations":     {"service/auth TestRegistrationsCannotEatTheLoginBudget"},
	"bcrypt_rotations":         {"service/auth TestRotateInAFlood"},
	"call_events":              {"service/rtc TestCallEventsKeepTheirOrder"},
	"data_channels":            {"service/rtc TestSecondDataChannel", Fire + " F29"},
	"event_streams_per_client": {"service/api TestEventStreamEnds"},
	"graces_per_client":        {"service TestRotationsWithGrace"},
	"media_control_queue":      {"service/rtc/netio TestControlQueueOverflow"},
	"media_packets_per_source": {"service/rtc/netio TestBudget"},
	"media_packets_unknown":    {"service/rtc/netio TestBudget"},
	"offers_per_second":        {"service/rtc/negotiate TestOfferFlood"},
	"probe_tokens":             {"service TestProbeTokens"},
	"probe_requests":           {"service TestProbeTokens"},
	"probes":                   {"service/rtc TestProbesAreBounded"},
	"remote_candidates":        {Fire + " F29"},
	"data_channel_rate":        {Fire + " F29"},
	"ws_message_bytes":         {Fire + " F29"},
	"registered_clients":       {"service/store TestInsertCap"},
	"session_rate":             {"service/rtc/forward TestRateIsLimited"},
	"session_rtcp_rate":        {"service/rtc/forward TestRTCPRateIsLimited"},
	"session_ssrcs":            {"service/rtc/forward TestNumberOfSSRCsIsBounded"},
	"setup_time":               {"service/rtc TestSessionsThatComeToNothing"},
	"tcp_connections":          {"service/rtc/netio TestStreamLimits"},
	"tcp_connections_per_ip":   {"service/rtc/netio TestStreamLimits"},
	"tcp_first_frame":          {"service/rtc/netio TestFirstFrameInTime"},
	"tcp_frame":                {"service/rtc/netio TestFrameSize"},
	"tcp_queue":                {"service/rtc/netio TestSlowStream"},
	"used_call_ids":            {"service/store TestCallIDCaps"},
	"ws_parked_messages":       {"service/api/ws TestParkedCaps"},
}

// Table is the table of limits for documents.
func Table(all []Edge) string {
	var b strings.Builder
	b.WriteString("| Limit | Value or key | Tests that reach it and go beyond |\n|---|---|---|\n")
	for _, e := range all {
		tests := "**none**"
		if len(e.Tests) > 0 {
			tests = strings.Join(shortened(e.Tests), ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.Name, e.Setting, tests)
	}
	return b.String()
}

// shortened are the first three tests, the folder said once.
func shortened(tests []string) (out []string) {
	last := ""
	for i, t := range tests {
		if i == 3 {
			return append(out, fmt.Sprintf("%d more", len(tests)-i))
		}
		dir, name, _ := strings.Cut(t, " ")
		text := "`" + name + "`"
		if dir != last {
			text = "`" + dir + "` " + text
		}
		out, last = append(out, text), dir
	}
	return out
}
