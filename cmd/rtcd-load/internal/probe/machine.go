package probe

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// Machine is how many ticks of CPU time all processes of the machine had and had not used.
type Machine struct{ Busy, Idle uint64 }

// ReadMachine reads that from Linux; elsewhere ok is false.
func ReadMachine() (m Machine, ok bool) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return Machine{}, false
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return Machine{}, false
	}
	return parseMachine(string(b))
}

func parseMachine(stat string) (m Machine, ok bool) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return Machine{}, false
	}
	for i, text := range fields[1:9] { // what is behind is in these already
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Machine{}, false
		}
		if i == 3 || i == 4 { // idle, waiting for disks
			m.Idle += n
		} else {
			m.Busy += n
		}
	}
	return m, true
}

// Since returns the share of the machine that was busy since an earlier time, 0 to 1.
func (m Machine) Since(earlier Machine) float64 {
	busy, idle := m.Busy-earlier.Busy, m.Idle-earlier.Idle
	if busy+idle == 0 || m.Busy < earlier.Busy || m.Idle < earlier.Idle {
		return 0
	}
	return float64(busy) / float64(busy+idle)
}
