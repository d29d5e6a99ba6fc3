package config

import (
	"fmt"
	"strconv"
	"strings"
)

// A Fault is a setting that stops the start.
type Fault struct {
	Key    string // name in the file, such as "rtc.ice_port_udp" or "rtc.ice_servers[1].urls"
	Value  string // what was found; "[redacted]" for secrets
	Rule   string // what it breaks, such as "must be from 80 to 49151"
	Source string // where the value came from: "default", the path of the file, or the name of a variable
}

func (f Fault) String() string {
	where := ""
	if f.Source != "" {
		where = " (" + f.Source + ")"
	}
	return fmt.Sprintf("%s = %s%s: %s", f.Key, quoted(f.Value), where, f.Rule)
}

// quoted quotes a value for a message, so that whatever it holds stays on one line.
func quoted(s string) string {
	if s == redacted {
		return s
	}
	return strconv.Quote(s)
}

// Faults is the error of a configuration that breaks rules: all of them, in the order of the keys.
type Faults []Fault

// Error returns one line for a single fault, else a line with the number and one for each.
func (f Faults) Error() string {
	if len(f) == 1 {
		return "configuration: " + f[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d faults", len(f))
	for _, fault := range f {
		b.WriteString("\n  ")
		b.WriteString(fault.String())
	}
	return b.String()
}

// orNil avoids an error interface that holds an empty list.
func (f Faults) orNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// A Report says what an operator should know about a load. Its String is meant to be printed.
type Report struct {
	Path        string   // of the file, as asked for
	FileMissing bool     // there is no file: defaults and environment applied
	Warnings    []string // unknown names, weak settings
	Notes       []string // what is worth knowing and may well be meant
	Faults      Faults   // broken rules
	Err         error    // the file could not be read or is not TOML, or Faults; nil if all is well

	sources map[string]string // of keys that are not at their default
}

// OK reports whether there is neither a fault nor a warning; a missing file and notes are fine.
func (r *Report) OK() bool { return r.Err == nil && len(r.Warnings) == 0 }

// Source returns where the value of a key came from: "default", the path of the file, or the name
// of an environment variable.
func (r *Report) Source(key string) string {
	if s, ok := r.sources[key]; ok {
		return s
	}
	return "default"
}

// String returns one line for each note, warning and fault, each with a trailing newline.
func (r *Report) String() string {
	var b strings.Builder
	if r.FileMissing {
		fmt.Fprintf(&b, "note: %s: no such file, using defaults and environment\n", quoted(r.Path))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "fault: %s\n", f)
	}
	if r.Err != nil && len(r.Faults) == 0 {
		fmt.Fprintf(&b, "fault: %s\n", r.Err)
	}
	if r.OK() {
		b.WriteString("configuration is valid\n")
	}
	return b.String()
}
