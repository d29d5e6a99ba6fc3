//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"rtcd/build/fire/load"
	"rtcd/service/rtc/rtctest"
)

var unaskedPackets = scenario{
	id: "P11", title: "end users name addresses that are not theirs", promises: []string{"P11"},
	criterion: "nothing is sent to an address that has not proved consent",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		// The victim is the host atk: it hears what is sent to 30 of its ports.
		var heard atomic.Int64
		var lines strings.Builder
		for i := range 30 {
			conn, err := f.Host("atk").ListenUDP(0)
			if err != nil {
				return err
			}
			t.after(func() { _ = conn.Close() })
			port := conn.LocalAddr().(*net.UDPAddr).Port
			fmt.Fprintf(&lines, "a=candidate:%d 1 udp 2130706431 %s %d typ host\r\n", i+1, f.Host("atk").Addr, port)
			go func() {
				for b := make([]byte, 1500); ; heard.Add(1) {
					if _, _, err := conn.ReadFromUDPAddrPort(b); err != nil {
						return
					}
				}
			}()
		}
		sessions := t.of(20, 200)
		for i := range sessions {
			q, err := load.NewPerson(p.Backends[0], f.Host("cli1"), "spray", fmt.Sprintf("spray-%d-%d", t.seed%1000, i), func(c *rtctest.EndpointConfig) {
				c.BendOffer = func(sdp string) string {
					return strings.Replace(sdp, "a=ice-ufrag:", lines.String()+"a=ice-ufrag:", 1)
				}
			})
			if err != nil {
				return err
			}
			if err := q.Connect(ctx); err != nil {
				return err
			}
			if err := t.wait(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			if err := q.Leave(); err != nil {
				return err
			}
			t.result.Count++
		}
		if err := t.wait(ctx, time.Second); err != nil {
			return err
		}
		n := int(heard.Load())
		t.result.More["packets_unasked"] = n
		kept := t.expect(n == 0, "%d packets came to addresses that never asked", n)
		t.promise("P11", kept, sessions*30, "addresses named", "%d packets were sent to them", n)
		return t.leaveIdle(ctx, p)
	},
}
