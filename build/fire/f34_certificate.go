//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var certificateRotation = scenario{
	id: "F34", title: "certificates are replaced while backends connect",
	criterion: "no handshake fails, the new certificate is in use within 10 s, connections that there are stay",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts("atk")...)
		if err != nil {
			return err
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) { c.TLS = true }, nil)
		if err != nil {
			return err
		}
		drops := p.Backends[0].Drops() + p.Backends[1].Drops()
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		var done, failed atomic.Int64
		var first atomic.Value // error
		hammering, stop := context.WithCancel(ctx)
		defer stop()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for hammering.Err() == nil {
					_, err := serial(hammering, p.Server, f.Host("atk"))
					if hammering.Err() != nil {
						return
					}
					done.Add(1)
					if err != nil {
						failed.Add(1)
						first.CompareAndSwap(nil, err)
					}
				}
			})
		}
		var slowest time.Duration
		for range t.of(2, 20) {
			took, err := rotateOnce(ctx, t, p.Server, f.Host("atk"))
			if err != nil {
				return err
			}
			slowest = max(slowest, took)
			t.result.Count++
		}
		stop()
		wg.Wait()
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.say("%d handshakes, %d failed; in use after at most %v", done.Load(), failed.Load(), slowest.Round(time.Millisecond))
		t.result.More["handshakes"], t.result.More["failed"], t.result.More["in_use_ms_max"] = done.Load(), failed.Load(), slowest.Milliseconds()
		t.expect(done.Load() > 10, "only %d handshakes were made", done.Load())
		t.expect(failed.Load() == 0, "%d of %d handshakes failed: %v", failed.Load(), done.Load(), first.Load())
		t.within(slowest, 10*time.Second, "a new certificate is used after %v", slowest)
		now := p.Backends[0].Drops() + p.Backends[1].Drops()
		t.expect(now == drops, "%d connections of backends were lost", now-drops)
		t.unbroken(figures)
		t.lossless(figures, 0)
		return t.leaveIdle(ctx, p)
	},
}

// rotateOnce gives the server a new certificate and returns after how long it uses it.
func rotateOnce(ctx context.Context, t *trial, s *load.Server, host *field.Namespace) (time.Duration, error) {
	before, err := serial(ctx, s, host)
	if err != nil {
		return 0, err
	}
	if err := s.Certify(); err != nil {
		return 0, err
	}
	for began := time.Now(); ; {
		now, err := serial(ctx, s, host)
		if err == nil && now != before {
			return time.Since(began), nil
		}
		if time.Since(began) > 40*time.Second {
			return 0, fmt.Errorf("the new certificate is not used within 40 s; the log ends with %s", s.LogTail(300))
		}
		if err := t.wait(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// serial makes a handshake, and returns the number of the certificate that the server shows.
func serial(ctx context.Context, s *load.Server, host *field.Namespace) (string, error) {
	conn, err := host.DialContext(ctx, "tcp", s.API().String())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.HandshakeContext(within); err != nil {
		return "", err
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}
