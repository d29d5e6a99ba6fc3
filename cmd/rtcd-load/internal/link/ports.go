package link

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"sync"
)

// Ports are those of a run's sockets. Its zero value has none; it is safe for concurrent use.
type Ports struct {
	mu   sync.Mutex
	open map[int]int       // sockets of each port, which may have several addresses
	last map[string]uint64 // what each socket had dropped when it was last looked at, by inode
	sum  uint64
}

func (p *Ports) add(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open, p.last = make(map[int]int), make(map[string]uint64)
	}
	p.open[port]++
}

func (p *Ports) remove(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[port]--; p.open[port] <= 0 {
		delete(p.open, port)
	}
}

// Dropped reads Linux's table of UDP sockets (/proc/net/udp) and returns how many datagrams the
// run's sockets have dropped so far because they were not read in time.
func (p *Ports) Dropped(table io.Reader) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 13 {
			continue
		}
		_, hex, ok := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if !ok || err != nil {
			continue
		}
		if p.open[int(port)] == 0 {
			continue
		}
		drops, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
		if err != nil {
			continue
		}
		if before := p.last[fields[9]]; drops > before {
			p.sum += drops - before
			p.last[fields[9]] = drops
		}
	}
	return p.sum
}
