//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/build/fire/field"
)

var hostileTCP = scenario{
	id: "F30", title: "TCP connections that say nothing, or nonsense, to the media port and the API (and F26)", promises: nil,
	criterion: "those to the media port are closed within 5 s, those to the API within 10 s; memory grows at most 8 MiB; no call broken",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk", "atk2", "atk3", "atk4")
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		media, api := p.Server.Media().String(), p.Server.API().String()
		var late atomic.Int64
		var longest atomic.Int64
		var wg sync.WaitGroup
		for i := range t.of(200, 5000) {
			nuisance := nuisances[i%len(nuisances)]
			to, most := media, 6*time.Second
			if nuisance.api {
				to, most = api, 12*time.Second
			}
			host := f.Host([]string{"atk", "atk2", "atk3", "atk4"}[i%4])
			t.result.Count++
			wg.Go(func() {
				if d := annoy(ctx, host, to, nuisance); d > most {
					late.Add(1)
				} else {
					longest.Store(max(longest.Load(), int64(d)))
				}
			})
			if i%100 == 99 {
				wg.Wait()
			}
		}
		wg.Wait()
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.say("%d of %d were closed late", late.Load(), t.result.Count)
		t.result.More["closed_late"] = late.Load()
		t.expect(late.Load() == 0, "%d of %d connections were closed late", late.Load(), t.result.Count)
		t.expect(figures.ResidentDelta <= 24<<20, "memory grew by %d MiB", figures.ResidentDelta>>20)
		t.unbroken(figures)
		t.lossless(figures, 0)
		return t.leaveIdle(ctx, p)
	},
}

// nuisance is what a connection says.
type nuisance struct {
	api  bool
	say  func() string
	drip bool // a byte at a time, one each 200 ms
}

var nuisances = []nuisance{
	{say: func() string { return "" }},
	{say: func() string { return "\x00\x14" + strings.Repeat("\x00", 100) }, drip: true},
	{say: func() string { return "\xff\xff" + strings.Repeat("x", 70_000) }},
	{say: func() string { return "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 500) }},
	{say: func() string { return "GET / HTTP/1.1\r\nHost: x\r\n\r\n" }},
	{say: func() string { return strings.Repeat("\x00\x02\x00\x00", 5000) }},
	{api: true, say: func() string { return "" }},
	{api: true, say: func() string { return "GET /version HTTP/1.1\r\nX: " + strings.Repeat("y", 200) }, drip: true},
	{api: true, say: func() string {
		return "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 209715200\r\n\r\n" + strings.Repeat("z", 1<<20)
	}},
	{api: true, say: func() string { return "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("h", 1<<20) + "\r\n\r\n" }},
	{api: true, say: func() string { return "BREW /pot HTTP/9.9\r\n\r\n" }},
	{api: true, say: func() string { return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 100) }},
}

// annoy makes a connection, says what it says, and returns how long it was before it was closed.
func annoy(ctx context.Context, host *field.Namespace, to string, n nuisance) time.Duration {
	conn, err := host.DialContext(ctx, "tcp", to)
	if err != nil {
		return 0 // refused is closed
	}
	defer func() { _ = conn.Close() }()
	began := time.Now()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go talk(conn, n)
	_ = conn.SetReadDeadline(began.Add(40 * time.Second))
	_, err = io.Copy(io.Discard, conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return time.Hour
	}
	return time.Since(began)
}

func talk(conn net.Conn, n nuisance) {
	text := n.say()
	if !n.drip {
		_, _ = fmt.Fprint(conn, text)
		return
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
		<-tick.C
	}
}
