//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var restart = scenario{
	id: "F32", title: "the server is killed and started again", promises: nil,
	criterion: "backends are back within 5 s without registering, their people can call again",
	run: func(ctx context.Context, t *trial) error {
		if _, err := t.ground(steadyHosts()...); err != nil {
			return err
		}
		p, err := t.steady(ctx, nil, func(c *load.PartyConfig) { c.Screen = load.Screen{} })
		if err != nil {
			return err
		}
		var longest, rejoined time.Duration
		for i := range t.of(2, 20) {
			p.Server.Kill()
			if err := p.Server.Run(ctx); err != nil {
				return fmt.Errorf("restart %d: %w", i, err)
			}
			began := time.Now()
			for _, b := range p.Backends {
				within, cancel := context.WithTimeout(ctx, 30*time.Second)
				err := b.Await(within, func() bool { _, up := b.Up(); return up })
				cancel()
				if err != nil {
					return fmt.Errorf("restart %d: %s is not back: %w", i, b.Name, err)
				}
			}
			longest = max(longest, time.Since(began))
			_ = p.Empty()
			if err := p.Fill(ctx); err != nil {
				return fmt.Errorf("restart %d: %w", i, err)
			}
			rejoined = max(rejoined, time.Since(began))
			t.result.Count++
		}
		t.result.RecoverMs = longest.Milliseconds()
		t.result.More["calling_again_ms_max"] = rejoined.Milliseconds()
		t.say("backends are back after at most %v, calls after %v", longest, rejoined)
		t.within(longest, 5*time.Second, "backends are back after %v", longest)
		return t.leaveIdle(ctx, p)
	},
}

var deadSTUN = scenario{
	id: "F42", title: "the STUN server is dead at the start", promises: nil,
	criterion: "ready within 5 s, and calls work",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts("atk")...)
		if err != nil {
			return err
		}
		if err := f.Cut("atk", field.Both); err != nil {
			return err
		}
		for _, servers := range []string{
			fmt.Sprintf(`["stun:%s:3478"]`, f.Host("atk").Addr), // a black hole
			fmt.Sprintf(`["stun:%s:9"]`, f.Host("be1").Addr),    // refused
			`["stun:no-such-host.invalid:3478"]`,                // no name
		} {
			t.result.Count++
			s, err := t.server(func(c *load.ServerConfig) {
				c.Dir = fmt.Sprintf("%s-%d", c.Dir, t.result.Count)
				c.Config = append(c.Config, "rtc.ice_servers = "+servers)
			})
			if err != nil {
				return err
			}
			began := time.Now()
			if err := s.Run(ctx); err != nil {
				t.shortfall("%s: %v", servers, err)
				continue
			}
			took := time.Since(began)
			t.say("%s: ready after %v", servers, took)
			t.result.RecoverMs = max(t.result.RecoverMs, took.Milliseconds())
			t.within(took, 5*time.Second, "%s: ready after %v", servers, took)
			p, err := load.NewParty(ctx, s, load.PartyConfig{
				Calls: 1, People: 2, Backends: []*field.Namespace{f.Host("be1")}, Clients: []*field.Namespace{f.Host("cli1"), f.Host("cli2")},
			})
			if err != nil {
				t.shortfall("%s: %v", servers, err)
			} else {
				p.Close()
			}
			s.Kill()
		}
		return nil
	},
}
