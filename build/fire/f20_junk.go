//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"rtcd/build/fire/field"
)

var junkFlood = scenario{
	id: "F20", title: "a flood of junk to the media port", promises: []string{"P9"},
	criterion: "no call broken, at most 0.1 % of packets lost, at most 0.35 of a processor more, at most 10 log lines, for each kind of junk",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		quiet, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		if err := t.wait(ctx, t.lasting(3*time.Second, 10*time.Second)); err != nil {
			return err
		}
		base, err := quiet.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		duration := t.briefly(2*time.Second, 4*time.Second, 60*time.Second)
		kept, sent := true, 0
		for _, kind := range junkKinds {
			w, err := p.Mark(ctx)
			if err != nil {
				return err
			}
			n, err := flood(ctx, f.Host("atk"), p.Server.Media(), kind, 10_000, duration)
			if err != nil {
				return err
			}
			figures, err := w.Measure(ctx, 5*time.Second)
			if err != nil {
				return err
			}
			sent += n
			t.result.Count++
			rate := float64(n) / duration.Seconds()
			t.say("%s: %.0f/s, %d of %d packets lost, %d log lines, %.2f cores more", kind.name, rate,
				figures.PacketsLost, figures.PacketsOwed, figures.LogLines, figures.CPU-base.CPU)
			t.result.More[kind.name+"_pps"] = int(rate)
			t.result.More[kind.name+"_cpu"] = figures.CPU - base.CPU
			t.worst(figures)
			if rate < 8000 { // that is the harness
				t.notJudged("%s: only %.0f packets of junk a second were sent", kind.name, rate)
			}
			t.expect(figures.CPU-base.CPU <= 0.35, "%s: takes %.2f of a processor", kind.name, figures.CPU-base.CPU)
			kept = t.unbroken(figures) && kept
			kept = t.lossless(figures, 0.001) && kept
			kept = t.expect(figures.LogLines <= 10, "%s: %d log lines", kind.name, figures.LogLines) && kept
		}
		r := t.result.Figures
		t.promise("P9", kept, len(junkKinds), "kinds of junk", "%d packets at 10 k/s: %d calls broken, %d of %d packets lost, %d log lines",
			sent, r.CallsBroken, r.PacketsLost, r.PacketsOwed, r.LogLines)
		return t.leaveIdle(ctx, p)
	},
}

// junkKind makes packets that are of no use.
type junkKind struct {
	name string
	make func(r *rand.Rand, b []byte) []byte
}

var junkKinds = []junkKind{
	{"noise", func(r *rand.Rand, b []byte) []byte {
		for len(b) < 20+r.IntN(1200) {
			b = append(b, byte(r.Uint32()))
		}
		return b
	}},
	{"stun", func(r *rand.Rand, b []byte) []byte { return appendCheck(r, b, "") }},
	{"stun_ufrag", func(r *rand.Rand, b []byte) []byte { return appendCheck(r, b, "aaaaaaaaaaaaaaaa:bbbbbbbb") }},
	{"dtls", func(r *rand.Rand, b []byte) []byte {
		// A record of a handshake with a ClientHello in it whose contents are noise (RFC 6347).
		const size = 120
		b = append(b, 22, 254, 253, 0, 0, 0, 0, 0, 0, 0, byte(r.Uint32()), 0, size)
		b = append(b, 1, 0, 0, size-12, 0, 0, 0, 0, 0, 0, 0, size-12)
		for range size - 12 {
			b = append(b, byte(r.Uint32()))
		}
		return b
	}},
	{"rtp", func(r *rand.Rand, b []byte) []byte {
		b = append(b, 0x80, 111)
		for range 120 {
			b = append(b, byte(r.Uint32()))
		}
		return b
	}},
}

// appendCheck appends a binding request (RFC 8489) with a username, if any, and an integrity that is
// noise.
func appendCheck(r *rand.Rand, b []byte, username string) []byte {
	start := len(b)
	b = append(b, 0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42)
	for range 12 {
		b = append(b, byte(r.Uint32()))
	}
	if username != "" {
		b = append(b, 0, 6, byte(len(username)>>8), byte(len(username)))
		b = append(b, username...)
		for len(b)%4 != start%4 {
			b = append(b, 0)
		}
		b = append(b, 0, 8, 0, 20)
		for range 20 {
			b = append(b, byte(r.Uint32()))
		}
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-20))
	return b
}

// flood sends so many packets of junk a second, from 16 sockets, and returns how many.
func flood(ctx context.Context, host *field.Namespace, to netip.AddrPort, kind junkKind, rate int, d time.Duration) (int, error) {
	const sockets, burst = 16, 20
	var conns []interface {
		WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
		Close() error
	}
	for range sockets {
		c, err := host.ListenUDP(0)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close() }()
		conns = append(conns, c)
	}
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, 1500)
	began := time.Now()
	tick := time.NewTicker(time.Second * burst / time.Duration(rate))
	defer tick.Stop()
	sent := 0
	for time.Since(began) < d {
		for due := int(time.Since(began).Seconds() * float64(rate)); sent < due; sent++ {
			b = kind.make(r, b[:0])
			if _, err := conns[sent%sockets].WriteToUDPAddrPort(b, to); err != nil {
				return sent, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sent, ctx.Err()
		}
	}
	return sent, nil
}
