// Package doctor finds what is wrong with a host, or with how a server is configured for it.
//
// A check is a function that looks at a part of a [Host] and of the configuration, and changes
// nothing. What it finds has a name that stays the same, says what was seen, why that matters and
// what to do; all names stand in one table, from which the operators' manual has its own. Run makes
// all checks; Startup those that are cheap and ask nobody, for a server that starts.
package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"rtcd/config"
)

// A Severity says how bad a finding is.
type Severity string

// Severities. With an error some or all of what the server is for does not work, or is open to
// anybody; with a warning it does not work well, or not for long; info is worth knowing.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// rank orders severities, the worst first.
func (s Severity) rank() int { return slices.Index([]Severity{Error, Warning, Info}, s) }

// A Finding is one thing that is wrong, or worth knowing.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	What     string   `json:"what"` // with the values that were seen; no secrets
	Why      string   `json:"why"`
	Fix      string   `json:"fix"`
}

// Options are what a look at a host is made of.
type Options struct {
	Config config.Config
	Report *config.Report // of its load; nil: not looked at
	Host   *Host          // nil: this machine
	Online bool           // also ask others: name servers, NTP, STUN, the servers that events go to
	NTP    string         // the server to ask for the time, host or host:port; with Online

	// MemoryStore says that nothing is stored in files.
	MemoryStore bool
}

// A visit is one look at a host.
type visit struct {
	Options
	host     *Host
	local    []local // addresses of the machine; nil if they could not be listed
	findings []Finding
}

// add notes a finding. id is one of the table; the rest says what was seen.
func (v *visit) add(id, format string, args ...any) {
	k := kindOf(id)
	v.findings = append(v.findings, Finding{ID: id, Severity: k.severity, What: fmt.Sprintf(format, args...), Why: k.why, Fix: k.fix})
}

// A check looks at one thing.
type check struct {
	run     func(ctx context.Context, v *visit)
	startup bool // it is cheap, asks nobody, and is right beside the server's own sockets
}

// checks are all there are, in the order in which an operator wants to hear of them.
var checks = []check{
	{run: checkStoreVolume, startup: true},
	{run: checkStoreAccess, startup: true},
	{run: checkRecords, startup: true},
	{run: checkPorts},
	{run: checkCandidates, startup: true},
	{run: checkOverride, startup: true},
	{run: checkOverrideName},
	{run: checkIPv6, startup: true},
	{run: checkCertificate, startup: true},
	{run: checkExposure},
	{run: checkClock, startup: true},
	{run: checkBuffers, startup: true},
	{run: checkOpenFiles, startup: true},
	{run: checkConntrack, startup: true},
	{run: checkMemory, startup: true},
	{run: checkCPU, startup: true},
	{run: checkTime},
	{run: checkSTUN},
	{run: checkReceivers},
	{run: checkConfig}, // last: it leaves out what others have told
}

func newVisit(o Options) *visit {
	v := &visit{Options: o, host: o.Host}
	if v.host == nil {
		v.host = ThisHost()
	}
	v.local, _ = v.host.Addresses()
	return v
}

// Run makes all checks, and returns what they found, the worst first. It takes seconds at most; ctx
// ends it earlier, with what was found until then.
func Run(ctx context.Context, o Options) []Finding {
	v := newVisit(o)
	if o.Report != nil && o.Report.Err != nil && len(o.Report.Faults) == 0 {
		checkConfig(ctx, v) // there is no configuration to look at a host with
		return v.findings
	}
	for _, c := range checks {
		if ctx.Err() != nil {
			break
		}
		c.run(ctx, v)
	}
	return v.sorted()
}

// Startup makes the checks that belong to a start and logs a line for each finding that asks for
// something to be done. It opens no port, asks nobody and takes no more than some milliseconds.
// What the configuration alone tells, its own check has warned of.
func Startup(ctx context.Context, o Options, log *slog.Logger) []Finding {
	o.Online = false
	v := newVisit(o)
	for _, c := range checks {
		if c.startup {
			c.run(ctx, v)
		}
	}
	found := v.sorted()
	for _, f := range found {
		if f.Severity != Info {
			log.Warn("doctor: "+f.What, "id", f.ID, "severity", string(f.Severity), "fix", f.Fix)
		}
	}
	return found
}

func (v *visit) sorted() []Finding {
	slices.SortStableFunc(v.findings, func(a, b Finding) int { return a.Severity.rank() - b.Severity.rank() })
	return v.findings
}

// Healthy reports whether nothing was found that asks for something to be done.
func Healthy(found []Finding) bool {
	return !slices.ContainsFunc(found, func(f Finding) bool { return f.Severity != Info })
}

// Text returns findings for people: of each a line with severity, name and what was seen, and two
// that say why and what to do.
func Text(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s %s: %s\n    why: %s\n    fix: %s\n", f.Severity, f.ID, f.What, f.Why, f.Fix)
	}
	return b.String()
}

// Table returns the table of all findings there can be, in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| Finding | Severity | Found when | Why it matters | What to do |\n|---|---|---|---|---|\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.id, k.severity, k.when, k.why, k.fix)
	}
	return b.String()
}

// IDs returns the names of all findings there can be.
func IDs() []string {
	var ids []string
	for _, k := range kinds {
		ids = append(ids, k.id)
	}
	return ids
}
