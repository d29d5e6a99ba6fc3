package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

const (
	maxFileBytes = 256 << 10
	maxWarnings  = 100
	envPrefix    = "RTCD_"
	envSkipHello = "RTCD_RTC_DTLS_INSECURE_SKIP_HELLOVERIFY"
)

// serviceLinks are variables that container platforms set for a service that is named like us
// (RTCD_SERVICE_HOST, RTCD_PORT_8045_TCP_ADDR, ...). Nobody wrote them, so nobody is warned.
var serviceLinks = regexp.MustCompile(
	`^RTCD_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

var serviceURL = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// Load reads the file at path over the defaults, then the variables of environ ("NAME=value", as
// from os.Environ) over both, and checks the result.
//
// A missing file is not an error. The report is never nil, also beside an error: [Faults] if keys
// break rules, else why the file could not be used. The configuration is valid only without an error.
func Load(path string, environ []string) (Config, *Report, error) {
	data, mode, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c, report := loadFile(nil, path, 0, environ)
		report.FileMissing = true
		return c, report, report.Err
	case err != nil:
		report := &Report{Path: path, Err: fmt.Errorf("read configuration: %w", err)}
		return Default(), report, report.Err
	}
	c, report := loadFile(data, path, mode, environ)
	return c, report, report.Err
}

func readFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > maxFileBytes {
		return nil, 0, fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return data, info.Mode(), nil
}

// A loading collects what a load finds.
type loading struct {
	config  Config
	report  *Report
	mode    fs.FileMode       // of the file
	inFile  []string          // keys of secrets that stand in the file
	faults  map[string]Faults // by key: values that could not be taken over, of the file or the environment
	unknown int
}

func load(data []byte, path string, environ []string) (Config, *Report) {
	return loadFile(data, path, 0, environ)
}

// loadFile is load with the permissions of the file.
func loadFile(data []byte, path string, mode fs.FileMode, environ []string) (Config, *Report) {
	l := &loading{
		mode:   mode,
		config: Default(),
		report: &Report{Path: path, sources: map[string]string{}},
		faults: map[string]Faults{},
	}
	var root map[string]any
	if _, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&root); err != nil {
		l.report.Err = syntaxError(path, data, err)
		return l.config, l.report
	}
	l.table("", root)
	l.environment(environ)
	if more := l.unknown - maxWarnings; more > 0 {
		l.report.Warnings = append(l.report.Warnings, fmt.Sprintf("%d more unknown names", more))
	}
	l.finish()
	return l.config, l.report
}

// table takes over the keys of one table of the file.
func (l *loading) table(prefix string, table map[string]any) {
	seen := map[string]bool{}
	for _, raw := range slices.Sorted(maps.Keys(table)) {
		name, value := prefix+strings.ToLower(raw), table[raw]
		key := known().byName[name]
		isTable := known().tables[name]
		if key == nil && !isTable {
			_, unknownTable := value.(map[string]any)
			l.unknownName(fmt.Sprintf("unknown key %s in %s", keyText(prefix, raw), l.report.Path),
				func() string { return nearestKey(name, unknownTable) })
			continue
		}
		if seen[name] {
			l.faults[name] = Faults{{Key: name, Rule: "is given twice, in different letter case", Value: raw, Source: l.report.Path}}
			continue
		}
		seen[name] = true
		if isTable {
			sub, ok := value.(map[string]any)
			if !ok {
				l.faults[name] = Faults{{Key: name, Value: redacted, Rule: "must be a table, not " + tomlType(value), Source: l.report.Path}}
				continue
			}
			l.table(name+".", sub)
			continue
		}
		l.report.sources[name] = l.report.Path
		l.note(key, key.setTOML(&l.config, value))
		l.secretStands(key)
		l.entryKeys(key, value)
	}
}

// entryKeys warns of unknown keys inside the entries of a list of tables.
func (l *loading) entryKeys(key *Key, value any) {
	fields := key.entryFields()
	if fields == nil {
		return
	}
	list, _ := anyList(value)
	for i, entry := range list {
		table, _ := entry.(map[string]any)
		for _, raw := range slices.Sorted(maps.Keys(table)) {
			if name := strings.ToLower(raw); !slices.Contains(fields, name) {
				prefix := fmt.Sprintf("%s[%d].", key.Name, i)
				l.unknownName("unknown key "+keyText(prefix, raw), func() string {
					return nearest(fields, func(field string) float64 { return changed(name, field) })
				})
			}
		}
	}
}

// note records why a key could not be set. A wrong value in the file stops the start even if a
// variable sets the key again.
func (l *loading) note(key *Key, faults Faults) {
	for i := range faults {
		faults[i].Source = l.report.sources[key.Name]
	}
	if len(faults) > 0 {
		l.faults[key.Name] = append(l.faults[key.Name], faults...)
	}
}

// unknownName warns, unless there are too many already; the search for the nearest name is not cheap.
func (l *loading) unknownName(what string, nearest func() string) {
	if l.unknown++; l.unknown <= maxWarnings {
		l.report.Warnings = append(l.report.Warnings, fmt.Sprintf("%s is ignored; the nearest known name is %s", what, nearest()))
	}
}

// environment takes over the variables. Of a name that occurs twice the last one counts.
func (l *loading) environment(environ []string) {
	values := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, envPrefix) {
			values[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		key := known().byEnv[name]
		switch {
		case key != nil:
			l.report.sources[key.Name] = name
			l.note(key, key.setText(&l.config, value))
			if key.entryFields() != nil {
				if list, err := jsonList(value); err == nil {
					l.entryKeys(key, list)
				}
			}
		case name == envSkipHello:
			l.report.Warnings = append(l.report.Warnings, name+" is ignored; the DTLS cookie exchange is always on")
		case serviceLinks.MatchString(name), strings.HasSuffix(name, "_PORT") && serviceURL.MatchString(value):
		default:
			// A variable's name may hold any byte but '='.
			l.unknownName("unknown environment variable "+keyText("", name), func() string { return nearestEnv(name) })
		}
	}
}

// finish checks the result. A key that could not be set keeps its fault and is not judged again.
func (l *loading) finish() {
	l.readSecretFiles()
	checked := l.config.check()
	l.judgeFile(checked)
	var all Faults
	for _, name := range slices.Sorted(maps.Keys(l.faults)) {
		all = append(all, l.faults[name]...)
	}
	for _, f := range checked.allFaults() {
		base, _, _ := strings.Cut(f.Key, "[")
		if _, dup := l.faults[base]; !dup {
			f.Source = l.report.Source(base)
			all = append(all, f)
		}
	}
	order := map[string]int{}
	for i, k := range known().keys {
		order[k.Name] = i
	}
	slices.SortStableFunc(all, func(a, b Fault) int {
		baseA, _, _ := strings.Cut(a.Key, "[")
		baseB, _, _ := strings.Cut(b.Key, "[")
		return order[baseA] - order[baseB]
	})
	l.report.Faults = all
	l.report.Err = all.orNil()
	l.report.Warnings = append(l.report.Warnings, checked.warnings()...)
	l.report.Notes = checked.notes
}

// keyText writes a key of the file; one that is not plain is quoted.
func keyText(prefix, raw string) string {
	for _, r := range raw {
		plain := r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !plain {
			return prefix + strconv.Quote(clip(raw))
		}
	}
	return prefix + clip(raw)
}

// syntaxError names the line. What stands there is repeated only if it cannot be a secret.
func syntaxError(path string, data []byte, err error) error {
	parse, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	line := parse.Position.Line
	lines := bytes.Split(data, []byte("\n"))
	text := parse.LastKey
	if line >= 1 && line <= len(lines) {
		text += " " + string(lines[line-1])
	}
	text = strings.ToLower(text)
	message := strconv.Quote(parse.Message)
	message = strings.ReplaceAll(message[1:len(message)-1], `\"`, `"`)
	for _, word := range []string{"secret", "credential", "ice_servers", "password", "token"} {
		if strings.Contains(text, word) {
			message = "not valid TOML (no detail, as a secret may stand here)"
		}
	}
	return fmt.Errorf("read configuration %s: line %d: %s", path, line, message)
}
