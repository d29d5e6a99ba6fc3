//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rtcd/build/fire/load"
)

var storeUnusable = scenario{
	id: "F5", title: "the store cannot be used: read-only, no folder, locked by another process", promises: nil,
	criterion: "the start ends within 1 s, with a status that is not 0, and names the path",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground("srv")
		if err != nil {
			return err
		}
		readOnly, err := f.Tmpfs("readonly", 64<<20)
		if err != nil {
			return err
		}
		if err := f.Host("srv").Run("mount", "-o", "remount,ro", readOnly); err != nil {
			return err
		}
		file := filepath.Join(f.Dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
		holder, err := t.server(nil)
		if err != nil {
			return err
		}
		if err := holder.Run(ctx); err != nil {
			return err
		}
		for name, path := range map[string]string{
			"read-only": filepath.Join(readOnly, "store"), "below a file": filepath.Join(file, "store"),
			"a file": file, "locked": holder.Store(),
		} {
			if err := startFails(ctx, t, name, path); err != nil {
				return err
			}
		}
		return nil
	},
}

// startFails starts a server that must not come up.
func startFails(ctx context.Context, t *trial, name, path string) error {
	s, err := t.server(func(c *load.ServerConfig) {
		c.Dir, c.Store = filepath.Join(t.field.Dir, "rtcd-"+strings.ReplaceAll(name, " ", "-")), path
		c.Config = append(c.Config, fmt.Sprintf("api.http.listen_address = %q", "127.0.0.1:18045"),
			`api.admin.listen_address = "127.0.0.1:18046"`, "rtc.ice_port_udp = 18443", "rtc.ice_port_tcp = 18443")
	})
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.Start(); err != nil {
		return err
	}
	t.result.Count++
	select {
	case <-s.Exited():
	case <-time.After(10 * time.Second):
		t.shortfall("%s: the server goes on", name)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	took := time.Since(began)
	t.say("%s: status %d after %v: %s", name, s.ExitCode(), took.Round(time.Millisecond), strings.TrimSpace(s.LogTail(200)))
	t.within(took, time.Second, "%s: ends after %v", name, took)
	t.expect(s.ExitCode() > 0, "%s: ends with status %d", name, s.ExitCode())
	t.expect(strings.Contains(s.LogTail(1<<16), path), "%s: the path is not named: %s", name, s.LogTail(300))
	return nil
}
