package report

import (
	"cmp"
	"slices"
	"unsafe"
)

// A Record is what is kept of a call: its sessions as recorders keep them.
type Record struct {
	ID       string
	Started  int64 // milliseconds since 1970
	Ended    int64 // likewise; 0: it goes on
	Sessions []Recorded
	Servers  []Server
	Omitted  int // sessions that are not there any more
}

// Recorded is a session of a Record.
type Recorded struct {
	ID, User string
	Network  string
	Joined   int64 // milliseconds since 1970
	Left     int64 // likewise; 0: it is there
	Reason   string
	Recorder *Recorder
}

// Limits of a record, beside those of each session.
const (
	maxPast      = 2_000    // sessions that have left
	maxPastBytes = 24 << 20 // of them
	maxServers   = 2 * 3600
)

// maxCallPoints is how many points of a call are opened: some 90 MiB. With more, those of the sessions that
// have the most stand for more seconds each.
const maxCallPoints = 400_000

// Past keeps sessions that have left a call. The zero Past is empty. It is not safe for concurrent use.
type Past struct {
	sessions []Recorded
	bytes    int
	omitted  int
}

// Add adds one that has left. When there are too many, those that left first go.
func (p *Past) Add(r Recorded) {
	p.sessions = append(p.sessions, r)
	p.bytes += r.size()
	for len(p.sessions) > maxPast || p.bytes > maxPastBytes {
		p.bytes -= p.sessions[0].size()
		p.sessions = slices.Delete(p.sessions, 0, 1)
		p.omitted++
	}
}

// Sessions returns those that are kept, and how many there were beside.
func (p *Past) Sessions() (kept []Recorded, omitted int) { return slices.Clone(p.sessions), p.omitted }

func (r *Recorded) size() int {
	return int(unsafe.Sizeof(*r)) + len(r.ID) + len(r.User) + len(r.Network) + len(r.Reason) + r.Recorder.Size()
}

// Size returns how many bytes the record takes.
func (r *Record) Size() int {
	n := int(unsafe.Sizeof(*r)) + len(r.ID) + len(r.Servers)*int(unsafe.Sizeof(Server{}))
	for i := range r.Sessions {
		n += r.Sessions[i].size()
	}
	return n
}

// Trim forgets sessions, those that left first before others, until the record takes no more than most bytes
// or has none left.
func (r *Record) Trim(most int) {
	size := r.Size()
	if size <= most {
		return
	}
	sessions := slices.Clone(r.Sessions)
	slices.SortStableFunc(sessions, func(a, b Recorded) int { return cmp.Compare(uint64(a.Left-1), uint64(b.Left-1)) }) // 0 is last
	n := 0
	for ; n < len(sessions) && size > most; n++ {
		size -= sessions[n].size()
	}
	r.Sessions, r.Omitted = sessions[n:], r.Omitted+n
}

// Open returns what the record tells, as of now, in milliseconds since 1970.
func (r *Record) Open(now int64) *Call {
	c := &Call{ID: r.ID, Started: r.Started, Ended: r.Ended, Now: now, Servers: r.Servers, Omitted: r.Omitted}
	if r.Ended != 0 {
		c.Now = r.Ended
	}
	total := 0
	for i := range r.Sessions {
		total += r.Sessions[i].Recorder.len()
	}
	each := total
	if total > maxCallPoints {
		each = max(leastPoints, maxCallPoints/len(r.Sessions))
	}
	for i := range r.Sessions {
		s := &r.Sessions[i]
		session := Session{ID: s.ID, User: s.User, Network: s.Network, Joined: s.Joined, Left: s.Left, Reason: s.Reason}
		session.Points = thin(s.Recorder.Points(), each)
		session.Events, session.More = s.Recorder.Events()
		session.Unknown = int(s.Recorder.Unknown().Seconds())
		c.Sessions = append(c.Sessions, session)
	}
	slices.SortStableFunc(c.Sessions, func(a, b Session) int { return int(a.Joined - b.Joined) })
	return c
}

// ServerLog keeps the server's samples of the last two hours. The zero ServerLog is empty. It is not safe
// for concurrent use.
type ServerLog struct{ samples []Server }

// Add adds a second.
func (l *ServerLog) Add(s Server) {
	if len(l.samples) == 2*maxServers {
		l.samples = append(l.samples[:0:0], l.samples[maxServers:]...) // others may look at the old ones
	}
	l.samples = append(l.samples, s)
}

// Since returns the samples from a time on, in seconds since 1970, of two hours at most.
func (l *ServerLog) Since(unix int64) []Server {
	i, _ := slices.BinarySearchFunc(l.samples, unix, func(s Server, u int64) int { return int(s.Unix - u) })
	i = max(i, len(l.samples)-maxServers)
	return l.samples[i:len(l.samples):len(l.samples)]
}
