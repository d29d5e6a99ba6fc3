// Command securitytable writes the table of docs/security.md: requirement row, what the server does,
// and the tests that show it. What the server does stands in rows.txt; a test shows a row by naming
// its id in its doc comment. With -check nothing is written: it fails if the table is not what it
// would write, if a row has no test, or if a test cites a row that is not listed.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rtcd/build/page"
)

//go:embed rows.txt
var rowsText string

func main() {
	check := flag.Bool("check", false, "write nothing, fail if the table is not up to date or a row has no test")
	flag.Parse()
	if err := run(".", *check); err != nil {
		fmt.Fprintln(os.Stderr, "securitytable:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	rows, err := parseRows(rowsText)
	if err != nil {
		return err
	}
	tests, err := citations(root)
	if err != nil {
		return err
	}
	if err := complete(rows, tests); err != nil {
		return err
	}
	return page.Fill(filepath.Join(root, "docs/security.md"), !check, "go run ./build/securitytable", map[string]string{"rows": table(rows, tests)})
}

// A row is one requirement.
type row struct{ id, does string }

var rowLine = regexp.MustCompile(`^([A-Z]{2}-\d\d) (\S.*)$`)

// parseRows reads lines of an id and what the server does; # begins a comment, and an indented line
// goes on with the one before.
func parseRows(text string) ([]row, error) {
	var rows []row
	seen := make(map[string]bool)
	for n, line := range strings.Split(text, "\n") {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, " ") && len(rows) > 0:
			rows[len(rows)-1].does += " " + strings.TrimSpace(line)
			continue
		}
		m := rowLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("rows.txt:%d: %q is not a row", n+1, line)
		}
		if seen[m[1]] {
			return nil, fmt.Errorf("rows.txt:%d: %s stands twice", n+1, m[1])
		}
		seen[m[1]] = true
		rows = append(rows, row{m[1], m[2]})
	}
	return rows, nil
}

var rowID = regexp.MustCompile(`\b(?:RT|OT|CR|TK|WX)-\d\d\b`)

// citations returns, for each row, the tests whose doc comments name it, as "folder TestName".
func citations(root string) (map[string][]string, error) {
	cited := make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || f.Doc == nil || !isTest(f.Name.Name) {
				continue
			}
			for _, id := range rowID.FindAllString(f.Doc.Text(), -1) {
				name := filepath.ToSlash(folder) + " " + f.Name.Name
				if !slices.Contains(cited[id], name) {
					cited[id] = append(cited[id], name)
				}
			}
		}
		return nil
	})
	for _, tests := range cited {
		slices.Sort(tests)
	}
	return cited, err
}

func isTest(name string) bool {
	return strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz")
}

// complete says which rows lack a test and which citations lack a row.
func complete(rows []row, tests map[string][]string) error {
	var faults []string
	listed := make(map[string]bool)
	for _, r := range rows {
		listed[r.id] = true
		if len(tests[r.id]) == 0 {
			faults = append(faults, r.id+" has no test: no doc comment of one names it")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(tests)) {
		if !listed[id] {
			faults = append(faults, id+" is cited by "+tests[id][0]+" and not in rows.txt")
		}
	}
	if faults != nil {
		return fmt.Errorf("%s", strings.Join(faults, "\n"))
	}
	return nil
}

func table(rows []row, tests map[string][]string) string {
	var b strings.Builder
	b.WriteString("| Row | What the server does | Shown by |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.id, r.does, shown(tests[r.id]))
	}
	return b.String()
}

// shown names tests, those of one folder together.
func shown(tests []string) string {
	var parts []string
	last := ""
	for _, t := range tests {
		folder, name, _ := strings.Cut(t, " ")
		if folder == last {
			parts[len(parts)-1] += " `" + name + "`"
			continue
		}
		parts = append(parts, "`"+folder+"` `"+name+"`")
		last = folder
	}
	return strings.Join(parts, ", ")
}
