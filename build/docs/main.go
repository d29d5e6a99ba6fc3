// Command docs writes the tables of docs/operations.md that follow from code: every metric, as the sources
// declare it, and every limit that counts its hits, and in docs/reliability.md the tests of those limits and the
// targets of fuzzing. With -write it changes the page; else it fails if the
// page is not what it would write. The table of configuration keys is checked by the tests of package
// config, key by key; what a key means is written by hand.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rtcd/build/fire/edges"
	"rtcd/build/fuzzall/targets"
	"rtcd/build/page"
	"rtcd/service/metrics"
)

// The pages with tables.
const (
	operations  = "docs/operations.md"
	reliability = "docs/reliability.md" // that limits hold
)

// command writes them.
const command = "go run ./build/docs -write"

func main() {
	write := flag.Bool("write", false, "write the tables")
	flag.Parse()
	if err := run(".", *write); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(root string, write bool) error {
	found, err := scan(filepath.Join(root, "service"))
	if err != nil {
		return err
	}
	if err := found.check(); err != nil {
		return err
	}
	tested, err := edges.Find(root, "service", "config", "cmd")
	if err != nil {
		return err
	}
	err = page.Fill(filepath.Join(root, operations), write, command, map[string]string{"metrics": found.metricTable(), "limits": limitTable()})
	if err != nil {
		return err
	}
	fuzzed, err := targets.Find(root)
	if err != nil {
		return err
	}
	counts, err := targets.ReadCounts(root)
	if err != nil {
		return err
	}
	fuzz, err := targets.Table(fuzzed, counts)
	if err != nil {
		return err
	}
	return page.Fill(filepath.Join(root, reliability), write, command, map[string]string{"tests of limits": edges.Table(tested), "fuzz targets": fuzz})
}

// A series is a metric as its declaration has it.
type series struct {
	kind, help string
	labels     []string
}

// declared is what the sources declare.
type declared struct {
	series map[string]series
	limits map[string]bool // names of limits
}

// check fails if the table of limits in package metrics is not that of the sources.
func (d *declared) check() error {
	known := make(map[string]bool)
	for _, l := range metrics.Limits() {
		known[string(l.Name)] = true
		if !d.limits[string(l.Name)] {
			return fmt.Errorf("service/metrics/limits.go has the limit %s, which no code has", l.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.limits)) {
		if !known[name] {
			return fmt.Errorf("the limit %s is not in service/metrics/limits.go", name)
		}
	}
	return nil
}

func (d *declared) metricTable() string {
	var b strings.Builder
	b.WriteString("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(d.series)) {
		s := d.series[name]
		labels := ""
		if len(s.labels) > 0 {
			labels = "`" + strings.Join(s.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, s.kind, labels, strings.TrimSuffix(s.help, "."))
	}
	b.WriteString("| `rtcd_process_*` | | | CPU, memory, file descriptors, start time |\n| `go_*` | | | Go runtime |\n")
	return b.String()
}

func limitTable() string {
	var b strings.Builder
	b.WriteString("| `limit` | Value or key | What is bounded, and what becomes of more |\n|---|---|---|\n")
	for _, l := range metrics.Limits() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", l.Name, l.Setting, l.Meaning)
	}
	return b.String()
}

// scan reads all sources below a folder but tests.
func scan(root string) (*declared, error) {
	d := &declared{series: make(map[string]series), limits: make(map[string]bool)}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				d.literal(n)
			case *ast.CallExpr:
				d.call(n)
			case *ast.ValueSpec:
				d.constant(filepath.Base(filepath.Dir(path)), n)
			}
			return true
		})
		return nil
	})
	return d, err
}

// literal takes a Sample or the options of a collector.
func (d *declared) literal(n *ast.CompositeLit) {
	field := make(map[string]ast.Expr)
	for _, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok {
				field[id.Name] = kv.Value
			}
		}
	}
	if l, ok := text(field["Limit"]); ok {
		d.limits[l] = true // of package auth
	}
	name, ok := text(field["Name"])
	help, also := text(field["Help"])
	if !ok || !also {
		return
	}
	if sub, ok := text(field["Subsystem"]); ok {
		name = sub + "_" + name
	}
	s := series{kind: "counter", help: help}
	kind := ""
	if sel, ok := n.Type.(*ast.SelectorExpr); ok {
		kind = sel.Sel.Name
	}
	switch {
	case field["Histogram"] != nil || kind == "HistogramOpts":
		s.kind = "histogram"
	case field["Gauge"] != nil || kind == "GaugeOpts":
		s.kind = "gauge"
	}
	if l, ok := text(field["Label"]); ok {
		s.labels = append(s.labels, l)
	}
	if more, ok := field["More"].(*ast.CompositeLit); ok {
		for i := 0; i < len(more.Elts); i += 2 {
			if l, ok := text(more.Elts[i]); ok {
				s.labels = append(s.labels, l)
			}
		}
	}
	if m, ok := field["ConstLabels"].(*ast.CompositeLit); ok {
		for _, e := range m.Elts {
			if l, ok := text(e.(*ast.KeyValueExpr).Key); ok {
				s.labels = append(s.labels, l)
			}
		}
	}
	d.add(name, s)
}

// call takes the calls by which package metrics and those that have samples of their own make series.
func (d *declared) call(n *ast.CallExpr) {
	var fun string
	switch f := n.Fun.(type) {
	case *ast.Ident:
		fun = f.Name
	case *ast.SelectorExpr:
		fun = f.Sel.Name
	}
	arg := func(i int) string {
		if i >= len(n.Args) {
			return ""
		}
		s, _ := text(n.Args[i])
		return s
	}
	rest := func(from int) (labels []string) {
		for _, a := range n.Args[min(from, len(n.Args)):] {
			if l, ok := text(a); ok {
				labels = append(labels, l)
			}
		}
		return labels
	}
	join := func(sub, name string) string { return strings.TrimPrefix(sub+"_"+name, "_") }
	switch fun {
	case "counterVec":
		d.add(join(arg(0), arg(1)), series{"counter", arg(2), rest(3)})
	case "newLiveGauge":
		d.add(join(arg(0), arg(1)), series{"gauge", arg(2), rest(3)})
	case "histogramVec":
		d.add(join("rtc", arg(0)), series{"histogram", arg(1), []string{"groupID"}})
	case "NewHistogramVec":
		if opts, ok := n.Args[0].(*ast.CompositeLit); ok && len(n.Args) == 2 {
			d.literal(opts)
			d.label(opts, n.Args[1])
		}
	case "NewDesc":
		d.desc(n)
	case "newBudget": // of package auth: its limit is its first argument
		if strings.HasPrefix(arg(0), "bcrypt_") {
			d.limits[arg(0)] = true
		}
	case "gauge":
		d.add(arg(0), series{"gauge", arg(1), nil})
	case "sink", "hook":
		label := map[string]string{"sink": "sink", "hook": "webhook"}[fun]
		kind := "counter"
		if len(n.Args) > 2 {
			if id, ok := n.Args[2].(*ast.Ident); ok && id.Name == "true" {
				kind = "gauge"
			}
		}
		d.add(arg(0), series{kind, arg(1), []string{label}})
	}
}

// label adds the labels of a vector.
func (d *declared) label(opts *ast.CompositeLit, list ast.Expr) {
	lit, ok := list.(*ast.CompositeLit)
	if !ok {
		return
	}
	var sub, name string
	for _, e := range opts.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			switch kv.Key.(*ast.Ident).Name {
			case "Subsystem":
				sub, _ = text(kv.Value)
			case "Name":
				name, _ = text(kv.Value)
			}
		}
	}
	full := "rtcd_" + strings.TrimPrefix(sub+"_"+name, "_")
	if s, ok := d.series[full]; ok {
		s.labels = nil
		for _, e := range lit.Elts {
			if l, ok := text(e); ok {
				s.labels = append(s.labels, l)
			}
		}
		d.series[full] = s
	}
}

// desc takes the descriptions of collectors: of a time of writing, and of a certificate.
func (d *declared) desc(n *ast.CallExpr) {
	if len(n.Args) < 3 {
		return
	}
	help, ok := text(n.Args[1])
	if !ok {
		return
	}
	s := series{kind: "gauge", help: help}
	var name string
	switch a := n.Args[0].(type) {
	case *ast.BinaryExpr: // namespace + "_name"
		name, _ = text(a.Y)
		name = strings.TrimPrefix(name, "_")
	case *ast.CallExpr: // BuildFQName(namespace, subsystem, name)
		sub, _ := text(a.Args[1])
		last, _ := text(a.Args[2])
		name, s.kind = sub+"_"+last, "histogram"
	}
	if lit, ok := n.Args[2].(*ast.CompositeLit); ok {
		for _, e := range lit.Elts {
			if l, ok := text(e); ok {
				s.labels = append(s.labels, l)
			}
		}
	}
	d.add(name, s)
}

// add notes a series whose name and help are known.
func (d *declared) add(name string, s series) {
	if name == "" || s.help == "" {
		return
	}
	if old, ok := d.series["rtcd_"+name]; ok && len(old.labels) > len(s.labels) {
		return
	}
	d.series["rtcd_"+name] = s
}

// constant takes constants that name limits.
func (d *declared) constant(pkg string, n *ast.ValueSpec) {
	of := ""
	if sel, ok := n.Type.(*ast.SelectorExpr); ok {
		of = sel.Sel.Name
	}
	for i, id := range n.Names {
		if i >= len(n.Values) {
			return
		}
		value, ok := text(n.Values[i])
		if !ok {
			continue
		}
		limit := strings.HasPrefix(strings.ToLower(id.Name), "limit")
		if of == "Limit" || limit && (pkg == "access" || pkg == "auth") {
			d.limits[value] = true
		}
	}
}

// text returns the value of a string literal.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
