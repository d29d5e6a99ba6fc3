package api

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// statusPage is how many sessions, and how many calls, a page shows.
const statusPage = 100

// maxStatusPage bounds the number of a page.
const maxStatusPage = 1_000_000

// A Status tells what the server is doing. Its lists are the caller's.
type Status interface {
	Status() StatusReport
}

// A StatusReport is what goes on in a server.
type StatusReport struct {
	Build     Build
	Started   time.Time
	Listeners []Listener
	Tenants   []TenantStatus
	Calls     []CallStatus
	Sessions  []SessionStatus
	Store     StoreStatus
	Limits    []LimitStatus   // that were hit
	Findings  []FindingStatus // of the start

	// What is left in processes that this one has taken over from, and in none of the lists.
	FormerSessions, FormerCalls int
}

// StoreStatus is about the store of clients.
type StoreStatus struct {
	Path    string `json:"path"`
	Clients int    `json:"clients"`
	Bytes   uint64 `json:"bytes"` // of the store; 0 in memory
	Free    uint64 `json:"free"`  // bytes of its volume
	MinFree uint64 `json:"minFree"`
}

// LimitStatus is a limit that was hit.
type LimitStatus struct {
	Name    string `json:"name"`
	Hits    uint64 `json:"hits"` // since the start
	Setting string `json:"setting"`
	Meaning string `json:"meaning"`
}

// FindingStatus is what the look at the machine at the start has found.
type FindingStatus struct {
	ID       string `json:"id"`
	Severity string `json:"severity"`
	What     string `json:"what"`
	Fix      string `json:"fix"`
}

// TenantStatus is what a client has.
type TenantStatus struct {
	ClientID    string `json:"clientID"`
	Connections int    `json:"connections"`
	Calls       int    `json:"calls"`
	Sessions    int    `json:"sessions"`
	Kilobits    int    `json:"kbps"` // both directions
}

// CallStatus is a call.
type CallStatus struct {
	ClientID     string `json:"clientID"`
	CallID       string `json:"callID"`
	Participants int    `json:"participants"`
	Seconds      int    `json:"seconds"` // since its oldest session came
	Poor         int    `json:"poor"`    // sessions that suffer
}

// SessionStatus is a session.
type SessionStatus struct {
	ClientID  string  `json:"clientID"`
	CallID    string  `json:"callID"`
	SessionID string  `json:"sessionID"`
	Seconds   int     `json:"seconds"`
	Path      string  `json:"path"`    // "udp", "tcp", or "" while it is not connected
	Quality   string  `json:"quality"` // "good", "fair", "poor", "unknown"
	RoundTrip int     `json:"rtt"`     // ms; 0: not known
	Delay     int     `json:"delay"`   // ms more than usual, of the direction that is worse
	Jitter    int     `json:"jitter"`  // ms, of sounds, likewise
	LossUp    float64 `json:"lossUp"`  // 0 to 1
	LossDown  float64 `json:"lossDown"`
	Up        int     `json:"upKbps"`
	Down      int     `json:"downKbps"`

	// Streams of videos (layers, cameras) that come from it, and that it has declared.
	LayersUp       int `json:"layersUp"`
	LayersDeclared int `json:"layersDeclared"`
	// Videos for it; of them in less than the best there is, and not at all.
	Videos  int `json:"videos"`
	Reduced int `json:"reduced"`
	Paused  int `json:"paused"`
}

func hasStatus(h *handler) bool { return h.Status != nil }

// A statusView is one page of a report.
type statusView struct {
	Version   string          `json:"version"`
	Uptime    int             `json:"uptime"` // s
	Load      float64         `json:"load"`
	Drain     drainAnswer     `json:"drain"`
	Listeners []Listener      `json:"-"`
	Totals    statusTotals    `json:"totals"`
	Tenants   []TenantStatus  `json:"tenants"`
	Calls     []CallStatus    `json:"calls"`
	Sessions  []SessionStatus `json:"sessions"`
	Store     StoreStatus     `json:"store"`
	Limits    []LimitStatus   `json:"limits"`
	Findings  []FindingStatus `json:"findings"`
	Page      int             `json:"page"`
	Pages     int             `json:"pages"`

	Age     time.Duration `json:"-"`
	Reports bool          `json:"-"` // whether calls have reports to link to
}

type statusTotals struct {
	Tenants  int            `json:"tenants"`
	Calls    int            `json:"calls"`
	Sessions int            `json:"sessions"`
	Quality  map[string]int `json:"quality"`

	FormerSessions int `json:"formerSessions"` // in processes that this one has taken over from
	FormerCalls    int `json:"formerCalls"`
}

// qualities from the worst to the best: the worst come first.
var qualities = []string{"poor", "fair", "good", "unknown"}

// look takes a page of the state. If that fails, the request has been answered.
func (x *exchange) look() (v statusView, ok bool) {
	q, ok := x.query("page")
	if !ok {
		return v, false
	}
	v.Page = 1
	if q.Has("page") {
		n, err := strconv.Atoi(q.Get("page"))
		if err != nil || n < 1 || n > maxStatusPage {
			x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, `parameter "page" is not the number of a page`})
			return v, false
		}
		v.Page = n
	}
	st := x.h.Status.Status()
	if v.Version = st.Build.Version; v.Version == "" {
		v.Version = DefaultVersion
	}
	v.Age = time.Since(st.Started).Truncate(time.Second)
	v.Uptime = int(v.Age.Seconds())
	v.Listeners = st.Listeners
	if x.h.Load != nil {
		v.Load = x.h.Load.Measured()
	}
	if x.h.Drainer != nil {
		v.Drain = drainJSON(x.h.Drainer.DrainState())
	}
	v.Totals = statusTotals{
		Tenants: len(st.Tenants), Calls: len(st.Calls), Sessions: len(st.Sessions), Quality: make(map[string]int),
		FormerSessions: st.FormerSessions, FormerCalls: st.FormerCalls,
	}
	v.Store, v.Limits, v.Findings = st.Store, append([]LimitStatus{}, st.Limits...), append([]FindingStatus{}, st.Findings...)
	for i := range st.Sessions {
		v.Totals.Quality[st.Sessions[i].Quality]++
	}
	slices.SortStableFunc(st.Tenants, func(a, b TenantStatus) int { return b.Sessions - a.Sessions })
	slices.SortStableFunc(st.Calls, func(a, b CallStatus) int { return b.Poor - a.Poor })
	slices.SortStableFunc(st.Sessions, func(a, b SessionStatus) int {
		return slices.Index(qualities, a.Quality) - slices.Index(qualities, b.Quality)
	})
	longest := max(len(st.Tenants), len(st.Calls), len(st.Sessions), 1)
	v.Pages = (longest + statusPage - 1) / statusPage
	v.Tenants, v.Calls, v.Sessions = pageOf(st.Tenants, v.Page), pageOf(st.Calls, v.Page), pageOf(st.Sessions, v.Page)
	v.Reports = slices.ContainsFunc(x.h.routes, func(r *route) bool {
		return r.method == get && r.pattern == "/admin/calls/{clientID}/{callID}/report"
	})
	return v, true
}

func pageOf[T any](list []T, page int) []T {
	from := min((page-1)*statusPage, len(list))
	return append([]T{}, list[from:min(from+statusPage, len(list))]...)
}

// readStatus serves GET /admin/status.
func (x *exchange) readStatus() {
	if v, ok := x.look(); ok {
		x.secret()
		x.write(http.StatusOK, v)
	}
}

//go:embed status.html
var statusText string

var statusTemplate = template.Must(template.New("status").Funcs(template.FuncMap{
	"percent": func(share float64) string { return strconv.FormatFloat(share*100, 'f', 1, 64) + " %" },
	"span":    func(seconds int) string { return (time.Duration(seconds) * time.Second).String() },
	"bytes":   sizeText,
	"rate":    rateText,
	"add":     func(a, b int) int { return a + b },
}).Parse(statusText))

// sizeText writes bytes for people.
func sizeText(n uint64) string {
	switch {
	case n >= 10<<30:
		return strconv.FormatUint(n>>30, 10) + " GiB"
	case n >= 10<<20:
		return strconv.FormatUint(n>>20, 10) + " MiB"
	}
	return strconv.FormatUint(n>>10, 10) + " KiB"
}

// rateText writes kilobits per second for people.
func rateText(kilobits int) string {
	if kilobits < 1000 {
		return strconv.Itoa(kilobits) + " kbit/s"
	}
	return strconv.FormatFloat(float64(kilobits)/1000, 'f', 1, 64) + " Mbit/s"
}

// statusPolicy lets the page do nothing but show itself.
const statusPolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// showStatus serves GET /admin/.
func (x *exchange) showStatus() {
	v, ok := x.look()
	if !ok {
		return
	}
	var page bytes.Buffer
	if err := statusTemplate.Execute(&page, v); err != nil {
		x.fail(err)
		return
	}
	x.secret()
	head := x.w.Header()
	head.Set("Content-Type", "text/html; charset=utf-8")
	head.Set("Content-Security-Policy", statusPolicy)
	head.Set("Referrer-Policy", "no-referrer")
	_, _ = page.WriteTo(x.w) // the peer may be gone
}
