package rtc_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/rtctest"
)

// What a session costs: goroutines, memory, CPU while idle and per join, beside a server made of
// pion as it comes. Each server runs in a process of its own, this test's binary once more, so that
// what is measured is it alone; the endpoints are in this process.
//
//	go test -run '^$' -bench BenchmarkSession -benchtime 1x ./service/rtc

// costServerEnv makes the test binary a server to be measured: "rtcd" or "pion".
const costServerEnv = "RTCD_COST_SERVER"

// costProfileEnv names a directory for profiles of the servers. Those of memory are finer with
// GODEBUG=memprofilerate=4096, at the price of CPU.
const costProfileEnv = "RTCD_COST_PROFILE"

func TestMain(m *testing.M) {
	if kind := os.Getenv(costServerEnv); kind != "" {
		if err := serveCost(kind, os.NewFile(3, "commands"), os.NewFile(4, "answers")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// costKind says what a frame between the processes is.
type costKind byte

const (
	costJoin    costKind = 'j'
	costSDP     costKind = 's'
	costICE     costKind = 'i'
	costMeasure costKind = 'm' // with text: collect garbage before
	costProfile costKind = 'p' // with the name of a file for the profile of the time since the last
)

// costFrames writes and reads frames: a kind, the number of a session, a length, a text.
type costFrames struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
	r  *bufio.Reader
}

func (f *costFrames) write(kind costKind, session int, text []byte) error {
	b := []byte{byte(kind)}
	b = binary.BigEndian.AppendUint16(b, uint16(session))
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.w.Write(append(b, text...))
	return err
}

func (f *costFrames) read() (kind costKind, session int, text []byte, err error) {
	var head [7]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, 0, nil, err
	}
	text = make([]byte, binary.BigEndian.Uint32(head[3:]))
	_, err = io.ReadFull(f.r, text)
	return costKind(head[0]), int(binary.BigEndian.Uint16(head[1:])), text, err
}

// costUse is what a process has used and uses.
type costUse struct {
	CPU        time.Duration
	Resident   int // bytes
	Heap       uint64
	Stacks     uint64
	Allocated  uint64
	Goroutines int
	Tops       map[string]int // goroutines by the function they started with
}

func measureUse(collect bool) (costUse, error) {
	if collect {
		runtime.GC()
		debug.FreeOSMemory()
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return costUse{}, err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	u := costUse{
		CPU:  time.Duration(usage.Utime.Nano() + usage.Stime.Nano()),
		Heap: mem.HeapInuse, Stacks: mem.StackInuse, Allocated: mem.TotalAlloc,
		Goroutines: runtime.NumGoroutine(), Tops: make(map[string]int),
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return u, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		return u, err
	}
	u.Resident = pages * os.Getpagesize()
	if collect {
		var b strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
			return u, err
		}
		count := regexp.MustCompile(`^(\d+) @`)
		for group := range strings.SplitSeq(b.String(), "\n\n") {
			lines := strings.Split(strings.TrimSpace(group), "\n")
			m := count.FindStringSubmatch(lines[0])
			if m == nil {
				if len(lines) > 1 { // the first is headed by a total
					lines = lines[1:]
					m = count.FindStringSubmatch(lines[0])
				}
				if m == nil {
					continue
				}
			}
			n, _ := strconv.Atoi(m[1])
			f := strings.Fields(lines[len(lines)-1])
			name, _, _ := strings.Cut(f[min(2, len(f)-1)], "+0x")
			u.Tops[name] += n
		}
	}
	return u, nil
}

// costServer is a server to be measured.
type costServer interface {
	join(session int) error
	signal(session int, kind costKind, text []byte)
}

// serveCost is the server's process: it does what frames say until there are no more.
func serveCost(kind string, in io.Reader, out io.Writer) error {
	frames := &costFrames{r: bufio.NewReader(in), w: out}
	var server costServer
	var err error
	switch kind {
	case "rtcd":
		server, err = newCostRTCD(frames)
	case "pion":
		server, err = newCostPion(frames)
	default:
		err = fmt.Errorf("no server %q", kind)
	}
	if err != nil {
		return err
	}
	var profile *os.File
	for {
		kind, session, text, err := frames.read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case costJoin:
			err = server.join(session)
		case costMeasure:
			var use costUse
			if use, err = measureUse(len(text) > 0); err == nil {
				answer, _ := json.Marshal(use)
				err = frames.write(costMeasure, 0, answer)
			}
		case costProfile:
			profile, err = nextProfile(profile, string(text))
		default:
			server.signal(session, kind, text)
		}
		if err != nil {
			return err
		}
	}
}

// nextProfile ends a profile and begins another, if it has a name.
func nextProfile(old *os.File, name string) (*os.File, error) {
	if old != nil {
		pprof.StopCPUProfile()
		heap, err := os.Create(old.Name() + ".heap")
		if err != nil {
			return nil, err
		}
		runtime.GC()
		if err := pprof.Lookup("heap").WriteTo(heap, 0); err != nil {
			return nil, err
		}
		if err := heap.Close(); err != nil {
			return nil, err
		}
		if err := old.Close(); err != nil {
			return nil, err
		}
	}
	if name == "" {
		return nil, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return f, pprof.StartCPUProfile(f)
}

// costRTCD is our server, with a log like that of one in use.
type costRTCD struct{ server *rtc.Server }

func newCostRTCD(frames *costFrames) (costServer, error) {
	for try := 0; ; try++ { // a port that is free for TCP need not be for UDP
		free, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addr := free.Addr().(*net.TCPAddr).AddrPort()
		_ = free.Close()
		server, err := startCostRTCD(frames, addr)
		if err == nil || try == 20 {
			return &costRTCD{server}, err
		}
	}
}

func startCostRTCD(frames *costFrames, addr netip.AddrPort) (*rtc.Server, error) {
	return rtc.NewServer(context.Background(), rtc.Config{
		UDPAddrs: []netip.AddrPort{addr},
		TCPAddrs: []netip.AddrPort{addr},
		Lite:     true,
		Engine:   engine.Config{Local: []netip.Addr{addr.Addr()}},
		Emit: func(e rtc.Event) {
			kind := costSDP
			switch {
			case e.Kind != rtc.Signal:
				return
			case e.Type == wire.SignalICE:
				kind = costICE
			}
			session, _ := strconv.Atoi(e.SessionID)
			_ = frames.write(kind, session, e.Data)
		},
		Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
	})
}

func (s *costRTCD) join(session int) error {
	id := strconv.Itoa(session)
	return s.server.Join("group", wire.Join{CallID: "call", UserID: "user" + id, SessionID: id})
}

func (s *costRTCD) signal(session int, kind costKind, text []byte) {
	t := wire.SignalSDP
	if kind == costICE {
		t = wire.SignalICE
	}
	id := strconv.Itoa(session)
	_ = s.server.Signal("group", id, wire.Signal{SessionID: id, Type: t, Data: text})
}

// costClient is the other side of a server's process.
type costClient struct {
	frames *costFrames
	uses   chan costUse
	failed chan error
	ctx    context.Context // ends with the server

	mu        sync.Mutex
	endpoints []*rtctest.Endpoint // guarded by mu
}

// startCost starts a server of that kind in a process of its own, and ends it with the test.
func startCost(tb testing.TB, kind string) *costClient {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), costServerEnv+"="+kind)
	cmd.ExtraFiles = []*os.File{inR, outW}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	_, _ = inR.Close(), outW.Close()
	c := &costClient{
		frames: &costFrames{w: inW, r: bufio.NewReader(outR)},
		uses:   make(chan costUse, 1), failed: make(chan error, 1),
	}
	ctx, ended := context.WithCancel(context.Background())
	c.ctx = ctx
	var reading sync.WaitGroup
	reading.Go(func() {
		defer ended()
		c.failed <- c.read()
	})
	tb.Cleanup(func() {
		var closing sync.WaitGroup
		for _, e := range c.endpoints {
			closing.Go(e.Close)
		}
		closing.Wait()
		_ = inW.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("server %s: %v", kind, err)
		}
		reading.Wait()
		_ = outR.Close()
	})
	return c
}

// read takes the server's frames until it ends.
func (c *costClient) read() error {
	for {
		kind, session, text, err := c.frames.read()
		if err != nil {
			return err
		}
		switch kind {
		case costMeasure:
			var use costUse
			if err := json.Unmarshal(text, &use); err != nil {
				return err
			}
			c.uses <- use
		case costSDP, costICE:
			t := wire.SignalSDP
			if kind == costICE {
				t = wire.SignalICE
			}
			c.mu.Lock()
			e := c.endpoints[session]
			c.mu.Unlock()
			e.Signal(t, text)
		}
	}
}

func (c *costClient) use(tb testing.TB, collect bool) costUse {
	tb.Helper()
	text := ""
	if collect {
		text = "collect"
	}
	if err := c.frames.write(costMeasure, 0, []byte(text)); err != nil {
		tb.Fatal(err)
	}
	select {
	case use := <-c.uses:
		return use
	case err := <-c.failed:
		tb.Fatalf("server ended: %v", err)
	}
	return costUse{}
}

// settle waits for the end of what a join leaves behind for a while, which is no cost of idling.
func (c *costClient) settle(ctx context.Context, tb testing.TB) {
	tb.Helper()
	select {
	case <-time.After(4 * time.Second):
	case <-ctx.Done():
		tb.Fatal(ctx.Err())
	}
}

func (c *costClient) profile(tb testing.TB, name string) {
	dir := os.Getenv(costProfileEnv)
	if dir == "" {
		return
	}
	if name != "" {
		name = dir + "/" + name
	}
	if err := c.frames.write(costProfile, 0, []byte(name)); err != nil {
		tb.Fatal(err)
	}
}

// prepare makes endpoints that have not joined.
func (c *costClient) prepare(tb testing.TB, n int) []int {
	tb.Helper()
	var out []int
	for range n {
		c.mu.Lock()
		id := len(c.endpoints)
		c.mu.Unlock()
		e, err := rtctest.NewEndpoint(rtctest.EndpointConfig{Send: func(t wire.SignalType, data []byte) {
			kind := costSDP
			if t == wire.SignalICE {
				kind = costICE
			}
			_ = c.frames.write(kind, id, data)
		}})
		if err != nil {
			tb.Fatal(err)
		}
		c.mu.Lock()
		c.endpoints = append(c.endpoints, e)
		c.mu.Unlock()
		out = append(out, id)
	}
	return out
}

// join returns how long an endpoint took from joining to its open data channel.
func (c *costClient) join(ctx context.Context, id int) (time.Duration, error) {
	c.mu.Lock()
	e := c.endpoints[id]
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	start := time.Now()
	if err := c.frames.write(costJoin, id, nil); err != nil {
		return 0, err
	}
	err := e.Connect(ctx)
	return time.Since(start), err
}

// sessionCost is what one session costs.
type sessionCost struct {
	goroutines float64
	tops       map[string]float64
	resident   float64 // KB; and of which:
	heap       float64
	stacks     float64
	idle       time.Duration // CPU per second
	join       time.Duration // CPU, one at a time
	allocated  float64       // KB, for a join
	storm      time.Duration // CPU, all at once
	clients    time.Duration // CPU of the endpoint, all at once
	single     times         // from joining to the open data channel, one at a time
	crowd      times         // all at once
}

// times are a sorted list.
type times []time.Duration

func (t times) at(quantile float64) time.Duration { return t[int(quantile*float64(len(t)-1))] }

// costSize is how much is measured.
type costSize struct {
	warm, sessions, storm int
	idle                  time.Duration
}

// measureCost measures a server.
func measureCost(ctx context.Context, tb testing.TB, kind string, size costSize) sessionCost {
	tb.Helper()
	c := startCost(tb, kind)
	one := func(n int) (out times) {
		for _, id := range c.prepare(tb, n) {
			d, err := c.join(ctx, id)
			if err != nil {
				tb.Fatalf("join %s: %v", kind, err)
			}
			out = append(out, d)
		}
		slices.Sort(out)
		return out
	}
	one(size.warm)
	c.settle(ctx, tb)
	var cost sessionCost
	n := float64(size.sessions)
	before := c.use(tb, true)
	c.profile(tb, kind+".join")
	began := time.Now()
	cost.single = one(size.sessions)
	joining := time.Since(began)
	joined := c.use(tb, false)
	c.profile(tb, kind+".idle")
	cost.join = (joined.CPU - before.CPU) / time.Duration(size.sessions)
	cost.allocated = float64(joined.Allocated-before.Allocated) / n / 1024

	c.settle(ctx, tb)
	after := c.use(tb, true)
	start := time.Now()
	cost.goroutines = float64(after.Goroutines-before.Goroutines) / n
	cost.resident = float64(after.Resident-before.Resident) / n / 1024
	cost.heap = (float64(after.Heap) - float64(before.Heap)) / n / 1024
	cost.stacks = (float64(after.Stacks) - float64(before.Stacks)) / n / 1024
	cost.tops = make(map[string]float64)
	for name, count := range after.Tops {
		if per := float64(count-before.Tops[name]) / n; per > 0.05 {
			cost.tops[name] = per
		}
	}
	select {
	case <-time.After(size.idle): // a share of what goes on all the time
	case <-ctx.Done():
		tb.Fatal(ctx.Err())
	}
	idle := c.use(tb, false)
	c.profile(tb, kind+".storm")
	cost.idle = time.Duration(float64(idle.CPU-after.CPU) / time.Since(start).Seconds() / (n + float64(size.warm)))
	// What those that had joined cost meanwhile is no part of a join.
	cost.join -= time.Duration(float64(cost.idle) * joining.Seconds() * (float64(size.warm) + n/2) / n)

	ids := c.prepare(tb, size.storm)
	idle = c.use(tb, false)
	var own, ownAfter syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	type result struct {
		took time.Duration
		err  error
	}
	all := make(chan result)
	for _, id := range ids {
		go func() {
			took, err := c.join(ctx, id)
			all <- result{took, err}
		}()
	}
	for range ids {
		j := <-all
		if j.err != nil {
			tb.Errorf("join %s with others: %v", kind, j.err)
		}
		cost.crowd = append(cost.crowd, j.took)
	}
	slices.Sort(cost.crowd)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ownAfter)
	cost.storm = (c.use(tb, false).CPU - idle.CPU) / time.Duration(size.storm)
	cost.clients = time.Duration(ownAfter.Utime.Nano()+ownAfter.Stime.Nano()-own.Utime.Nano()-own.Stime.Nano()) /
		time.Duration(size.storm)
	c.profile(tb, "")
	return cost
}

// table shows the costs of servers side by side.
func table(ours, pion sessionCost) string {
	var b strings.Builder
	row := func(name string, a, b2 float64, unit string) {
		fmt.Fprintf(&b, "%-42s %9.2f %9.2f  %5.2f  %s\n", name, a, b2, a/b2, unit)
	}
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	fmt.Fprintf(&b, "\n%-42s %9s %9s  %5s\n", "per session", "rtcd", "pion", "ratio")
	row("goroutines", ours.goroutines, pion.goroutines, "")
	row("resident", ours.resident, pion.resident, "KB")
	row("  heap", ours.heap, pion.heap, "KB")
	row("  stacks", ours.stacks, pion.stacks, "KB")
	row("idle", float64(ours.idle)/1e3, float64(pion.idle)/1e3, "us/s")
	row("CPU of a join", ms(ours.join), ms(pion.join), "ms")
	row("allocated for a join", ours.allocated, pion.allocated, "KB")
	row("time of a join, p50", ms(ours.single.at(0.5)), ms(pion.single.at(0.5)), "ms")
	row("time of a join, p99", ms(ours.single.at(0.99)), ms(pion.single.at(0.99)), "ms")
	row("CPU of a join, all at once", ms(ours.storm), ms(pion.storm), "ms")
	row("CPU of the endpoint, all at once", ms(ours.clients), ms(pion.clients), "ms")
	row("time of a join, all at once, p50", ms(ours.crowd.at(0.5)), ms(pion.crowd.at(0.5)), "ms")
	row("time of a join, all at once, p99", ms(ours.crowd.at(0.99)), ms(pion.crowd.at(0.99)), "ms")
	row("  bound", ms(ours.bound()), ms(pion.bound()), "ms")
	for _, s := range []struct {
		name string
		cost sessionCost
	}{{"rtcd", ours}, {"pion", pion}} {
		fmt.Fprintf(&b, "goroutines of %s:\n", s.name)
		var names []string
		for name := range s.cost.tops {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, "  %6.2f %s\n", s.cost.tops[name], name)
		}
	}
	return b.String()
}

// bound is what the slowest of those who join at once may take: twice what one takes alone and the
// CPU of all the others, the server's and the endpoints', on the cores there are.
func (c sessionCost) bound() time.Duration {
	work := time.Duration(len(c.crowd)) * (c.storm + c.clients) / time.Duration(runtime.GOMAXPROCS(0))
	return 2 * (c.single.at(0.5) + work)
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-race" && s.Value == "true"
	})
}

// What a session may cost at most, with some room: the figures are in docs/decisions/0010.
const (
	mostGoroutines = 18
	mostResident   = 230 // KB
	mostJoin       = 1.5 // times the CPU of pion's
)

// A session costs no more goroutines, memory and time than it is known to.
func TestSessionCost(t *testing.T) {
	if testing.Short() || raceEnabled() || runtime.GOOS != "linux" {
		t.Skip("measures what the machine does")
	}
	ctx := deadline(t, 120*time.Second)
	size := costSize{warm: 10, sessions: 60, storm: 60, idle: time.Second}
	pion := measureCost(ctx, t, "pion", size)
	ours := measureCost(ctx, t, "rtcd", size)
	t.Log(table(ours, pion))
	if ours.goroutines > mostGoroutines {
		t.Errorf("%.1f goroutines, more than %d", ours.goroutines, mostGoroutines)
	}
	if ours.resident > mostResident {
		t.Errorf("%.0f KB resident, more than %d", ours.resident, mostResident)
	}
	if most := time.Duration(float64(pion.storm) * mostJoin); ours.storm > most {
		t.Errorf("a join of many takes %v of CPU, more than %v", ours.storm, most)
	}
	if got, most := ours.crowd.at(0.99), 2*ours.bound(); got > most {
		t.Errorf("joins at once take up to %v, more than %v", got, most)
	}
}

// BenchmarkSession prints the table and reports the figures of ours, and of pion's as they come.
func BenchmarkSession(b *testing.B) {
	size := costSize{warm: 20, sessions: 200, storm: 200, idle: 5 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for b.Loop() {
		costs := make(map[string]sessionCost)
		for _, kind := range []string{"pion", "rtcd"} {
			b.Run(kind, func(b *testing.B) {
				b.StopTimer()
				cost := measureCost(ctx, b, kind, size)
				if !b.Failed() {
					costs[kind] = cost
				}
				b.ReportMetric(cost.goroutines, "goroutines/session")
				b.ReportMetric(cost.resident, "KB/session")
				b.ReportMetric(float64(cost.idle)/1e3, "idle-us/s/session")
				b.ReportMetric(float64(cost.join)/1e6, "cpu-ms/join")
				b.ReportMetric(float64(cost.storm)/1e6, "cpu-ms/join-of-200")
				b.ReportMetric(float64(cost.single.at(0.5))/1e6, "p50-ms/join")
				b.ReportMetric(float64(cost.crowd.at(0.99))/1e6, "p99-ms/join-of-200")
			})
		}
		if len(costs) < 2 {
			b.FailNow()
		}
		fmt.Print(table(costs["rtcd"], costs["pion"]))
	}
}
