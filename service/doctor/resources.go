package doctor

import (
	"context"
	"math"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// What a server needs.
const (
	wantBuffer    = 16 << 20 // that it asks for, of each media socket and direction
	enoughBuffer  = 4 << 20
	spareFiles    = 128 // beside connections: files of the store, logs
	fewTracked    = 16_384
	littleMemory  = 256 << 20
	littleGoLimit = 64 << 20
)

func checkClock(_ context.Context, v *visit) {
	now := v.host.Now()
	if y := now.Year(); y < 2025 || y > 2100 {
		v.add(clockImplausible, "it is %s here", now.UTC().Format("2006-01-02 15:04"))
		return
	}
	if ok, err := v.host.Synchronised(); err == nil && !ok {
		v.add(clockUnsynchronised, "adjtimex: the clock is not synchronised")
	}
}

func checkBuffers(_ context.Context, v *visit) {
	read, write, err := v.host.Buffers(wantBuffer)
	if err == nil && min(read, write) < enoughBuffer {
		v.add(buffersSmall, "a media socket asks for %d KiB and gets %d KiB to receive, %d KiB to send", wantBuffer>>10, read>>10, write>>10)
	}
}

func checkOpenFiles(_ context.Context, v *visit) {
	have, err := v.host.OpenFiles()
	if err != nil {
		return
	}
	l := v.Config
	sockets := len(v.mediaLocals()) * min(l.RTC.UDPSocketsCount, runtime.NumCPU())
	need := l.API.Limits.Connections + l.RTC.Limits.TCPConnections + sockets + spareFiles
	if have < uint64(max(need, 0)) {
		v.add(filesLow, "at most %d files; api.limits.connections = %d and rtc.limits.tcp_connections = %d need %d",
			have, l.API.Limits.Connections, l.RTC.Limits.TCPConnections, need)
	}
}

// number reads a file that holds one.
func (v *visit) number(file string) (uint64, bool) {
	data, err := v.host.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

func checkConntrack(_ context.Context, v *visit) {
	const dir = "/proc/sys/net/netfilter/nf_conntrack_"
	most, ok := v.number(dir + "max")
	if !ok || most == 0 { // 0: no limit
		return
	}
	used, _ := v.number(dir + "count")
	switch {
	case used >= most-most/10:
		v.add(conntrackFull, "net.netfilter.nf_conntrack_count = %d of nf_conntrack_max = %d", used, most)
	case most <= fewTracked:
		v.add(conntrackSmall, "net.netfilter.nf_conntrack_max = %d", most)
	}
}

// cgroup returns the folders of this process's groups with a controller, the innermost first, and
// whether they are of version 2.
func (v *visit) cgroup(controller string) (dirs []string, v2 bool) {
	data, err := v.host.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, false
	}
	const root = "/sys/fs/cgroup"
	group, base := "", ""
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0" && f[1] == "" && group == "":
			group, base, v2 = f[2], root, true
		case strings.Contains(","+f[1]+",", ","+controller+","):
			group, base, v2 = f[2], path.Join(root, f[1]), false
		}
	}
	for at := path.Clean("/" + group); base != ""; at = path.Dir(at) {
		dirs = append(dirs, path.Join(base, at))
		if at == "/" {
			break
		}
	}
	return dirs, v2
}

// memoryLimit returns the least limit of the groups, and false without one.
func (v *visit) memoryLimit() (uint64, bool) {
	const unlimited = math.MaxInt64 >> 1 // version 1 says a number like that
	dirs, v2 := v.cgroup("memory")
	file := "memory.limit_in_bytes"
	if v2 {
		file = "memory.max"
	}
	least := uint64(unlimited)
	for _, dir := range dirs {
		if n, ok := v.number(path.Join(dir, file)); ok {
			least = min(least, n)
		}
	}
	return least, least < unlimited
}

func checkMemory(_ context.Context, v *visit) {
	limit, limited := v.memoryLimit()
	soft := v.host.GoMemory()
	set := soft != math.MaxInt64
	const mib = 1 << 20
	if limited && limit < littleMemory {
		v.add(memorySmall, "the memory limit is %d MiB", limit/mib)
	}
	switch {
	case set && soft < littleGoLimit:
		v.add(memoryGoSmall, "GOMEMLIMIT is %d MiB", soft/mib)
	case set && limited && uint64(soft) > limit:
		v.add(memoryGoLimit, "GOMEMLIMIT is %d MiB, the limit %d MiB", soft/mib, limit/mib)
	case !set && limited && limit >= littleMemory:
		v.add(memoryGoUnset, "the memory limit is %d MiB", limit/mib)
	}
}

// cpus returns the least number of CPUs that the groups allow, and false without a limit.
func (v *visit) cpus() (float64, bool) {
	dirs, v2 := v.cgroup("cpu")
	least := math.Inf(1)
	for _, dir := range dirs {
		var quota, period uint64
		var okQ, okP bool
		if v2 {
			data, err := v.host.ReadFile(path.Join(dir, "cpu.max"))
			f := strings.Fields(string(data))
			if err != nil || len(f) != 2 {
				continue
			}
			var errQ, errP error
			quota, errQ = strconv.ParseUint(f[0], 10, 64)
			period, errP = strconv.ParseUint(f[1], 10, 64)
			okQ, okP = errQ == nil, errP == nil
		} else {
			quota, okQ = v.number(path.Join(dir, "cpu.cfs_quota_us"))
			period, okP = v.number(path.Join(dir, "cpu.cfs_period_us"))
		}
		if okQ && okP && period > 0 {
			least = min(least, float64(quota)/float64(period))
		}
	}
	return least, !math.IsInf(least, 1)
}

func checkCPU(_ context.Context, v *visit) {
	if n, limited := v.cpus(); limited && n < 1 {
		v.add(cpuQuotaSmall, "the CPU limit is %.2f", n)
	}
}
