//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var spoofedPackets = scenario{
	id: "F23", title: "packets from off the path, with the addresses of end users (F21 to F24)", promises: []string{"P10"},
	criterion: "alerts, CCS, ClientHellos, RTP, RTCP and checks that are forged end no session and are not forwarded; set-ups succeed",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		raw, err := f.Host("atk").Raw()
		if err != nil {
			return err
		}
		defer func() { _ = raw.Close() }()
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		attacks := 0
		for range t.least(1, 3, 7) {
			for _, q := range p.People {
				for _, forge := range forgeries {
					if err := forgeAt(raw, t.rand, p.Server.Media(), q, forge); err != nil {
						return err
					}
					attacks++
				}
				if err := t.wait(ctx, 10*time.Millisecond); err != nil {
					return err
				}
			}
		}
		if err := t.wait(ctx, 2*time.Second); err != nil {
			return err
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		failures, setUps, err := raceHandshakes(ctx, t, f, p, raw)
		if err != nil {
			return err
		}
		t.result.Count = attacks + setUps
		kept := t.unbroken(figures)
		kept = t.lossless(figures, 0) && kept
		kept = t.expect(failures == 0, "%d of %d set-ups failed", failures, setUps) && kept
		t.promise("P10", kept, attacks+setUps, "attacks on sessions and set-ups", "%d sessions closed, %d packets forged ones displaced, %d of %d set-ups failed",
			figures.SessionsClosed, figures.PacketsLost, failures, setUps)
		return t.leaveIdle(ctx, p)
	},
}

// target is what somebody off the path may have guessed of a session.
type target struct {
	ssrc   uint32
	ufrags string // of a check: the server's, a colon, the end user's
}

// forgery makes a packet without knowing any key.
type forgery func(r *rand.Rand, at target) []byte

var forgeries = []forgery{
	func(*rand.Rand, target) []byte { return []byte{21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 1, 0} },  // close_notify
	func(*rand.Rand, target) []byte { return []byte{21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 2, 40} }, // handshake_failure
	func(*rand.Rand, target) []byte { // an alert that looks encrypted
		b := []byte{21, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 26}
		return append(b, make([]byte, 26)...)
	},
	func(*rand.Rand, target) []byte { return []byte{20, 254, 253, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 1} }, // change_cipher_spec
	func(r *rand.Rand, _ target) []byte { return clientHello(r) },
	func(r *rand.Rand, at target) []byte { // RTP with a tag that is noise
		b := []byte{0x90, 111, 0, byte(r.Uint32()), 0, 0, 0, 0}
		b = binary.BigEndian.AppendUint32(b, at.ssrc)
		return appendNoise(r, append(b, 0xbe, 0xde, 0, 1, 0x10, 0x1e, 0, 0), 90)
	},
	func(r *rand.Rand, at target) []byte { // RTP with all the CSRCs that there can be, and extensions
		b := []byte{0xbf, 111, 0, byte(r.Uint32()), 0, 0, 0, 0}
		b = binary.BigEndian.AppendUint32(b, at.ssrc)
		return appendNoise(r, b, 60)
	},
	func(r *rand.Rand, at target) []byte { // BYE
		b := []byte{0x81, 203, 0, 1}
		b = binary.BigEndian.AppendUint32(b, at.ssrc)
		return appendNoise(r, b, 14)
	},
	func(r *rand.Rand, at target) []byte { return appendCheck(r, nil, at.ufrags) },
	func(*rand.Rand, target) []byte { return []byte{} },
}

func appendNoise(r *rand.Rand, b []byte, n int) []byte {
	for range n {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// clientHello is a whole ClientHello (RFC 6347) that offers NULL ciphers only.
func clientHello(r *rand.Rand) []byte {
	body := []byte{254, 253}
	body = appendNoise(r, body, 32)
	body = append(body, 0, 0, 0, 4, 0, 1, 0, 2, 1, 0, 0, 0) // no session, no cookie, NULL ciphers, no extensions
	size := len(body)
	handshake := append([]byte{1, 0, 0, byte(size), 0, 0, 0, 0, 0, 0, 0, byte(size)}, body...)
	record := []byte{22, 254, 253, 0, 0, 0, 0, 0, 0, 0, byte(r.Uint32()), 0, byte(len(handshake))}
	return append(record, handshake...)
}

// forgeAt sends one forgery, and 50 of it, from the address of a person and from another.
func forgeAt(raw *field.RawSocket, r *rand.Rand, to netip.AddrPort, q *load.Person, forge forgery) error {
	port, ok := q.LocalPort()
	if !ok {
		return fmt.Errorf("%s is not connected", q.Name)
	}
	at := target{ssrc: q.VoiceSSRC(), ufrags: ufrags(q)}
	from := netip.AddrPortFrom(q.Host.Addr, port)
	for range 51 {
		packet := forge(r, at)
		for _, src := range []netip.AddrPort{from, netip.AddrPortFrom(q.Host.Addr, port+1)} {
			if err := raw.Send(field.AppendUDP(nil, src, to, packet)); err != nil {
				return err
			}
		}
	}
	return nil
}

var ufragLine = regexp.MustCompile(`(?m)^a=ice-ufrag:(\S+)`)

// ufrags is the username of a check of a person's (RFC 8445, section 7.2.2).
func ufrags(q *load.Person) string {
	ufrag := func(d *webrtc.SessionDescription) string {
		if d == nil {
			return ""
		}
		if m := ufragLine.FindStringSubmatch(d.SDP); m != nil {
			return m[1]
		}
		return ""
	}
	pc := q.Endpoint().PC()
	return ufrag(pc.RemoteDescription()) + ":" + ufrag(pc.LocalDescription())
}

// raceHandshakes has people join while ClientHellos and alerts come from their addresses.
func raceHandshakes(ctx context.Context, t *trial, f *field.Field, p *load.Party, raw *field.RawSocket) (failures, setUps int, err error) {
	failed := make(map[string]int)
	defer func() {
		for name, n := range failed {
			t.result.More["failed_"+name] = n
			t.say("%d set-ups failed with %s", n, name)
		}
	}()
	for i := range t.least(8, 12, 400) {
		kind := raceKinds[i%len(raceKinds)]
		q, err := load.NewPerson(p.Backends[0], f.Host("cli1"), "race", fmt.Sprintf("race-%d-%d", t.seed%1000, i), nil)
		if err != nil {
			return 0, 0, err
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { race(raw, p.Server.Media(), q, kind.make, stop) })
		within, cancel := context.WithTimeout(ctx, 15*time.Second)
		err = q.Connect(within)
		cancel()
		close(stop)
		wg.Wait()
		setUps++
		if err != nil {
			failures++
			failed[kind.name]++
		}
		if err := q.Leave(); err != nil {
			return 0, 0, err
		}
	}
	return failures, setUps, ctx.Err()
}

// raceKinds are what comes from the address of somebody who is connecting.
var raceKinds = []struct {
	name string
	make forgery
}{
	{"hello", func(r *rand.Rand, _ target) []byte { return clientHello(r) }},
	{"close_notify", forgeries[0]},
	{"handshake_failure", forgeries[1]},
	{"change_cipher_spec", forgeries[3]},
}

// race sends 50 forgeries of a kind from each address that a person may have, from the moment it is
// known on, 200 a second.
func race(raw *field.RawSocket, to netip.AddrPort, q *load.Person, make forgery, stop <-chan struct{}) {
	r := rand.New(rand.NewPCG(3, 4))
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < 50; {
		for _, from := range q.Candidates() {
			_ = raw.Send(field.AppendUDP(nil, from, to, make(r, target{})))
			sent++
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}
