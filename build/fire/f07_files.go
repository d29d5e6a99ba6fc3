//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"rtcd/build/fire/load"
)

var filesExhausted = scenario{
	id: "F7", title: "no file descriptors are left", promises: nil,
	criterion: "no call broken, at most 5 % of a processor more, back within 2 s",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		usage, err := p.Server.Usage(ctx)
		if err != nil {
			return err
		}
		if err := p.Server.LimitFiles(uint64(usage.Files + 100)); err != nil {
			return err
		}
		quiet, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		if err := t.wait(ctx, t.lasting(4*time.Second, 10*time.Second)); err != nil {
			return err
		}
		base, err := quiet.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		var idle []net.Conn
		for i := range 1000 {
			// Where a limit of the server's closes them, the next ones take their place.
			host, port := []string{"atk", "be1", "be2", "cli1"}[i%4], load.APIPort
			if i%2 == 1 {
				port = load.MediaPort
			}
			within, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			c, err := f.Host(host).DialContext(within, "tcp", fmt.Sprintf("%s:%d", f.Host("srv").Addr, port))
			cancel()
			if err == nil {
				idle = append(idle, c)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		t.say("%d of 1000 connections were made", len(idle))
		werr := t.wait(ctx, t.lasting(4*time.Second, 20*time.Second))
		for _, c := range idle {
			_ = c.Close()
		}
		if werr != nil {
			return werr
		}
		healed := time.Now()
		for {
			within, cancel := context.WithTimeout(ctx, time.Second)
			_, err := p.Backends[0].Client.Version(within)
			cancel()
			if err == nil || time.Since(healed) > 20*time.Second {
				break
			}
		}
		recovered := time.Since(healed)
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		figures.RecoverMs = recovered.Milliseconds()
		t.result.Count = 1000
		t.result.More["cpu_more"] = figures.CPU - base.CPU
		t.worst(figures)
		t.unbroken(figures)
		t.within(recovered, 2*time.Second, "answers %v after there were descriptors", recovered)
		t.expect(figures.CPU-base.CPU <= 0.05, "takes %.2f of a processor more", figures.CPU-base.CPU)
		return t.leaveIdle(ctx, p)
	},
}
