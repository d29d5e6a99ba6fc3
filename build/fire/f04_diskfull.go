//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
	"rtcd/client"
)

var diskFull = scenario{
	id: "F4", title: "the disk of the store is full", promises: []string{"P3"},
	criterion: "no crash, calls go on, logins work, registrations are refused as unavailable and taken again within 5 s of free space",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		kept, longest := true, time.Duration(0)
		for _, disk := range []string{"tmpfs", "ext4"} {
			ok, d, err := fillDisk(ctx, t, f, disk)
			if err != nil {
				return fmt.Errorf("%s: %w", disk, err)
			}
			kept, longest = kept && ok, max(longest, d)
		}
		t.result.RecoverMs = longest.Milliseconds()
		t.promise("P3", kept, t.result.Count, "fillings of tmpfs and ext4", "%d calls broken, registers again after at most %d ms",
			t.result.CallsBroken, longest.Milliseconds())
		return nil
	},
}

// fillDisk fills the disk of a server's store and frees it, again and again.
func fillDisk(ctx context.Context, t *trial, f *field.Field, disk string) (kept bool, longest time.Duration, err error) {
	const size = 64 << 20
	var dir string
	if disk == "tmpfs" {
		dir, err = f.Tmpfs(disk, size)
	} else {
		dir, _, err = f.Ext4(disk, size)
	}
	if err != nil {
		return false, 0, err
	}
	p, err := t.steady(ctx, func(c *load.ServerConfig) {
		c.Dir, c.Store = filepath.Join(f.Dir, "rtcd-"+disk), filepath.Join(dir, "store")
		c.Config = append(c.Config, "store.min_free_mib = 8")
	}, nil)
	if err != nil {
		return false, 0, err
	}
	w, err := p.Mark(ctx)
	if err != nil {
		return false, 0, err
	}
	kept = true
	for i := range t.of(3, 25) {
		d, err := fillOnce(ctx, t, p, dir, fmt.Sprintf("%s-%d", disk, i))
		if err != nil {
			return false, 0, err
		}
		t.result.Count++
		longest = max(longest, d)
		kept = t.within(d, 5*time.Second, "%s: takes registrations %v after there was space", disk, d) && kept
	}
	figures, err := w.Measure(ctx, 5*time.Second)
	if err != nil {
		return false, 0, err
	}
	t.worst(figures)
	kept = t.expect(p.Server.Alive(), "%s: the server has ended", disk) && kept
	kept = t.unbroken(figures) && kept
	kept = t.lossless(figures, 0) && kept && len(t.result.Shortfalls) == 0
	if err := t.leaveIdle(ctx, p); err != nil {
		return false, 0, err
	}
	p.Close()
	p.Server.Kill()
	return kept, longest, nil
}

// fillOnce fills the disk to the last byte, looks at what works, and returns how long after its being
// freed a registration is taken.
func fillOnce(ctx context.Context, t *trial, p *load.Party, dir, name string) (time.Duration, error) {
	ballast := filepath.Join(dir, "ballast")
	if err := fill(ballast); err != nil {
		return 0, err
	}
	host := p.Backends[0].Host
	fresh, err := plainClient(p.Server, host, registration{name, p.Backends[0].Key()})
	if err != nil {
		return 0, err
	}
	defer fresh.CloseIdleConnections()
	if err := fresh.Register(ctx); !errors.Is(err, client.ErrUnavailable) {
		t.shortfall("%s: a registration on a full disk ends with %v", name, err)
	}
	known, err := plainClient(p.Server, host, registration{p.Backends[0].Name, p.Backends[0].Key()})
	if err != nil {
		return 0, err
	}
	defer known.CloseIdleConnections()
	if _, err := known.Login(ctx); err != nil {
		t.shortfall("%s: a login on a full disk ends with %v", name, err)
	}
	if err := os.Remove(ballast); err != nil {
		return 0, err
	}
	for began := time.Now(); ; {
		err := fresh.Register(ctx)
		if err == nil {
			return time.Since(began), nil
		}
		if time.Since(began) > 20*time.Second || !errors.Is(err, client.ErrUnavailable) {
			t.shortfall("%s: a registration with free space ends with %v", name, err)
			return time.Since(began), nil
		}
		if err := t.wait(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// fill writes a file until nothing fits on the disk any more.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 4
		}
	}
	return nil
}
