//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var webSocketDrops = scenario{
	id: "F11", title: "a backend's WebSocket drops and comes back while media flows", promises: []string{"P4"},
	criterion: "no media packet lost; no message to the backend lost, doubled or out of order; a dead connection noticed within 20 s",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) { c.TLS = true }, nil)
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		d := &dropper{t: t, f: f, p: p}
		if err := d.begin(ctx); err != nil {
			return err
		}
		for range t.least(2, 3, 120) {
			for _, kind := range []drop{{"reset", d.reset}, {"finish", d.finish}, {"vanish", d.vanish}, {"abort", d.abort}} {
				if err := d.cycle(ctx, kind); err != nil {
					return err
				}
			}
		}
		for range t.least(0, 1, 20) {
			if err := d.cycle(ctx, drop{"black hole", d.blackHole}); err != nil {
				return err
			}
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.result.More["signals"], t.result.More["signals_lost_or_doubled"] = d.told, d.wrong
		t.result.More["half_open_ms_max"] = d.noticed.Milliseconds()
		kept := t.unbroken(figures)
		kept = t.lossless(figures, 0) && kept
		kept = t.expect(figures.PacketsTwice == 0, "%d packets came twice", figures.PacketsTwice) && kept
		kept = t.expect(d.wrong == 0, "%d messages lost or doubled", d.wrong) && kept
		const asking = 500 * time.Millisecond // until the metrics tell
		kept = t.within(d.noticed, 20*time.Second+asking, "a dead connection was noticed after %v", d.noticed) && kept
		t.promise("P4", kept, t.result.Count, "drops of 5 kinds", "%d of %d media packets and %d of %d messages lost or doubled",
			figures.PacketsLost, figures.PacketsOwed, d.wrong, d.told)
		return t.leaveIdle(ctx, p)
	},
}

// dropper breaks the connections of backends. In each call one person begins or stops to speak while
// the connection is away, which the server has to tell exactly once.
type dropper struct {
	t *trial
	f *field.Field
	p *load.Party

	speaking    bool
	told, wrong int
	mu          sync.Mutex
	noticed     time.Duration // the longest that a dead connection went unnoticed
}

// speakers are the people whose voices are watched: the last of each call.
func (d *dropper) speakers(b *load.Backend) (out []*load.Person) {
	last := make(map[string]*load.Person)
	for _, q := range d.p.People {
		if q.Backend == b {
			last[q.Call] = q
		}
	}
	for _, q := range last {
		out = append(out, q)
	}
	return out
}

// begin has everybody who is watched be told of once.
func (d *dropper) begin(ctx context.Context) error {
	d.toggle()
	return d.awaitTold(ctx)
}

func (d *dropper) toggle() {
	d.speaking = !d.speaking
	for _, b := range d.p.Backends {
		for _, q := range d.speakers(b) {
			q.Excite(d.speaking)
		}
	}
}

// awaitTold waits until the last word of everybody watched is what they do.
func (d *dropper) awaitTold(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, b := range d.p.Backends {
		for _, q := range d.speakers(b) {
			err := b.Await(ctx, func() bool {
				said := b.Voice(q.Name)
				return len(said) > 0 && said[len(said)-1] == d.speaking
			})
			if ctx.Err() != nil {
				d.wrong++
				d.t.shortfall("%s was not told that speech of %s is %t: %v", b.Name, q.Name, d.speaking, tail(b.Voice(q.Name)))
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func tail(b []bool) []bool { return b[max(0, len(b)-6):] }

// drop is a way to break a connection.
type drop struct {
	name string
	do   func(context.Context, *load.Backend) error
}

// cycle breaks the connection of each backend once.
func (d *dropper) cycle(ctx context.Context, kind drop) error {
	before := make(map[*load.Person]int)
	drops := make(map[*load.Backend]int)
	for _, b := range d.p.Backends {
		drops[b] = b.Drops()
		for _, q := range d.speakers(b) {
			before[q] = len(b.Voice(q.Name))
		}
	}
	errs := make(chan error, len(d.p.Backends))
	d.toggle()
	for _, b := range d.p.Backends {
		go func() { errs <- kind.do(ctx, b) }()
	}
	for range d.p.Backends {
		if err := <-errs; err != nil {
			return err
		}
	}
	for _, b := range d.p.Backends {
		within, cancel := context.WithTimeout(ctx, 40*time.Second)
		err := b.Await(within, func() bool {
			_, up := b.Up()
			return up && b.Drops() > drops[b]
		})
		cancel()
		if err != nil {
			return fmt.Errorf("%s does not come back: %w", b.Name, err)
		}
		d.t.result.Count++
	}
	if err := d.awaitTold(ctx); err != nil {
		return err
	}
	for _, b := range d.p.Backends {
		for _, q := range d.speakers(b) {
			said := b.Voice(q.Name)
			d.told += len(said) - before[q]
			for i := max(1, before[q]); i < len(said); i++ {
				if said[i] == said[i-1] {
					d.wrong++
					d.t.shortfall("%s: %s was told twice that speech of %s is %t", kind.name, b.Name, q.Name, said[i])
				}
			}
		}
	}
	return nil
}

// reset breaks the connection with an RST. What the server sent and we have not acknowledged is lost,
// what we have acknowledged is read before.
func (d *dropper) reset(ctx context.Context, b *load.Backend) error {
	host := b.Host.Name
	if err := d.f.Cut(host, field.To); err != nil {
		return err
	}
	if err := d.drain(ctx, b); err != nil {
		return err
	}
	socket := b.Socket()
	_ = socket.SetLinger(0)
	_ = socket.Close()
	if err := d.t.wait(ctx, d.away()); err != nil {
		return err
	}
	return d.f.Mend(host, field.To)
}

// finish ends our direction in good order.
func (d *dropper) finish(_ context.Context, b *load.Backend) error { return b.Socket().CloseWrite() }

// abort says something that is no TLS, on which the server breaks the connection off.
func (d *dropper) abort(_ context.Context, b *load.Backend) error {
	_, err := b.Socket().Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff}) // the header of a record, no more
	return err
}

// vanish breaks the connection as the end of the backend's process does, with a FIN, and then an RST
// for whatever comes.
func (d *dropper) vanish(ctx context.Context, b *load.Backend) error {
	host := b.Host.Name
	if err := d.f.Cut(host, field.To); err != nil {
		return err
	}
	if err := d.drain(ctx, b); err != nil {
		return err
	}
	_ = b.Socket().Close()
	if err := d.t.wait(ctx, d.away()); err != nil {
		return err
	}
	return d.f.Mend(host, field.To)
}

// away is how long a backend stays away: mostly not long.
func (d *dropper) away() time.Duration {
	return 100*time.Millisecond + time.Duration(time.Now().UnixNano()%int64(500*time.Millisecond))
}

// blackHole drops all packets, until the backend has noticed by itself.
func (d *dropper) blackHole(ctx context.Context, b *load.Backend) error {
	host, drops, began := b.Host.Name, b.Drops(), time.Now()
	if err := d.f.Cut(host, field.Both); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := d.awaitNoticed(within, b, began); err != nil {
		return err
	}
	err := b.Await(within, func() bool { return b.Drops() > drops })
	if err2 := d.f.Mend(host, field.Both); err2 != nil {
		return err2
	}
	if err != nil {
		return fmt.Errorf("%s does not notice that its connection is dead: %w", b.Name, err)
	}
	return nil
}

// awaitNoticed waits until the server has given up the connection of a backend.
func (d *dropper) awaitNoticed(ctx context.Context, b *load.Backend, began time.Time) error {
	for {
		metrics, err := d.p.Server.Metrics(ctx)
		if err != nil {
			return err
		}
		if metrics[fmt.Sprintf("rtcd_ws_connections_total{clientID=%q}", b.Name)] == 0 {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.noticed = max(d.noticed, time.Since(began))
			return nil
		}
		if err := d.t.wait(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("the server does not notice that the connection of %s is dead: %w", b.Name, err)
		}
	}
}

// drain waits until everything that the kernel has is acknowledged and read.
func (d *dropper) drain(ctx context.Context, b *load.Backend) error {
	raw, err := b.Socket().SyscallConn()
	if err != nil {
		return err
	}
	// An acknowledgement may be held back for up to 200 ms (TCP_DELACK_MAX).
	for unread, began := 1, time.Now(); unread > 0 || time.Since(began) < 250*time.Millisecond; {
		if err := d.t.wait(ctx, 20*time.Millisecond); err != nil { // the kernel has no event for it
			return err
		}
		cerr := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
		if cerr != nil || err != nil {
			return nil // it is closed already
		}
	}
	return nil
}
