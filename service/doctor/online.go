package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/url"
	"time"
)

const (
	maxOffset    = 5 * time.Second // of the clock
	maxReceivers = 16              // that are tried
	attempts     = 3               // of a question over UDP
	attemptTime  = time.Second     // for an answer to each
)

// ask sends a question over UDP until there is an answer that is one.
func (v *visit) ask(ctx context.Context, address string, question []byte, answers func([]byte) bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := v.host.Dial(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	b := make([]byte, 1500)
	for range attempts {
		if _, err = conn.Write(question); err != nil {
			return nil, err
		}
		if err = conn.SetReadDeadline(time.Now().Add(attemptTime)); err != nil {
			return nil, err
		}
		for {
			var n int
			if n, err = conn.Read(b); err != nil {
				break
			}
			if answers(b[:n]) {
				return b[:n], nil
			}
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// ntpEpoch is the beginning of the first era of NTP (RFC 5905 section 6).
var ntpEpoch = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// ntpTime reads a timestamp. One without the highest bit is of the era from 2036 on.
func ntpTime(b []byte) time.Time {
	seconds, fraction := uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))
	if seconds < 1<<31 {
		seconds += 1 << 32
	}
	return ntpEpoch.Add(time.Duration(seconds) * time.Second).Add(time.Duration(fraction * uint64(time.Second) >> 32))
}

// checkTime asks an NTP server for the time (RFC 5905 section 8, as a client that asks once).
func checkTime(ctx context.Context, v *visit) {
	if !v.Online || v.NTP == "" {
		return
	}
	address := v.NTP
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, "123")
	}
	question := make([]byte, 48)
	question[0] = 4<<3 | 3 // version 4, client
	// Our time is nobody's business; the server sends it back as it is, which tells its answer
	// from others'.
	if _, err := rand.Read(question[40:]); err != nil {
		return
	}
	sent := v.host.Now()
	answer, err := v.ask(ctx, address, question, func(b []byte) bool {
		return len(b) >= 48 && b[0]&7 == 4 && b[1] >= 1 && b[1] <= 15 && bytes.Equal(b[24:32], question[40:])
	})
	if err != nil {
		v.add(clockUnchecked, "ntp server %q: %v", v.NTP, err)
		return
	}
	got := v.host.Now()
	offset := (ntpTime(answer[32:]).Sub(sent) + ntpTime(answer[40:]).Sub(got)) / 2
	if offset.Abs() > maxOffset {
		v.add(clockOff, "the clock is %v off that of the ntp server %q", -offset.Round(100*time.Millisecond), v.NTP)
	}
}

const stunCookie = 0x2112A442

// checkSTUN asks the STUN server as the start does (RFC 8489 section 6).
func checkSTUN(ctx context.Context, v *visit) {
	address := v.Config.RTC.DiscoveryAddress()
	if !v.Online || address == "" || v.Config.RTC.ICEHostOverride != "" {
		return
	}
	question := make([]byte, 20)
	binary.BigEndian.PutUint16(question, 0x0001) // binding request
	binary.BigEndian.PutUint32(question[4:], stunCookie)
	if _, err := rand.Read(question[8:]); err != nil {
		return
	}
	_, err := v.ask(ctx, address, question, func(b []byte) bool {
		return len(b) >= 20 && binary.BigEndian.Uint16(b) == 0x0101 && bytes.Equal(b[4:20], question[4:])
	})
	if err != nil {
		v.add(stunUnreachable, "stun server %q: %v", address, err)
	}
}

// checkReceivers connects to the servers that audit events and events of calls go to. Over UDP nobody
// answers, so there is nothing to see. Of the URL of a webhook only the host is shown: its path is
// often a secret.
func checkReceivers(ctx context.Context, v *visit) {
	if !v.Online {
		return
	}
	tried := 0
	try := func(id, key string, i int, address string) {
		if tried++; tried > maxReceivers {
			return
		}
		if err := v.reach(ctx, address); err != nil {
			v.add(id, "%s[%d] %q: %v", key, i, address, err)
		}
	}
	if v.Config.AuditOn() {
		for i, s := range v.Config.Audit.Sinks {
			if s.Transport != "udp" {
				try(auditUnreachable, "audit.sink", i, s.Address)
			}
		}
	}
	for i, w := range v.Config.Webhooks {
		u, err := url.Parse(w.URL)
		if err != nil || u.Hostname() == "" {
			continue // the rules of the configuration say so
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80"}[u.Scheme]
		}
		if port == "" {
			port = "443"
		}
		try(hookUnreachable, "webhook", i, net.JoinHostPort(u.Hostname(), port))
	}
}

func (v *visit) reach(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := v.host.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
