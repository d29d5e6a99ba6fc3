package netio

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// A Drop is a reason for which a packet or a connection was dropped.
type Drop uint8

// The reasons.
const (
	DropMalformed    Drop = iota // received: neither STUN, DTLS 1.2 nor media, or of a wrong length
	DropTruncated                // received: longer than any buffer of ours
	DropUnknownMedia             // received: RTP or RTCP from a path without keys
	DropAlert                    // received: plaintext DTLS alert, which anybody can forge
	DropForged                   // received: DTLS that the endpoint cannot have sent at that time
	DropSourceBudget             // received: control packets above the rate of one source
	DropGlobalBudget             // received: control packets above the rate of all sources
	DropControlQueue             // received: control queue full
	DropSendBuffer               // sent: socket buffer full
	DropUnreachable              // sent: no route, or host or network unreachable
	DropForbidden                // sent: firewall or prohibiting route
	DropTooLarge                 // sent: larger than the route allows
	DropSendError                // sent: any other error
	DropPaused                   // sent: not tried, what went to the same destination before failed
	DropNoPath                   // sent: TCP connection gone, socket closed, or no such local address
	DropStreamQueue              // sent: TCP connection's queue full
	DropConnLimit                // TCP connection refused: too many in all
	DropConnSource               // TCP connection refused: too many from one source
	DropFirstFrame               // TCP connection closed: first frame not a STUN request, or late
	DropFrameSize                // TCP connection closed: frame empty or too large
	DropIdle                     // TCP connection closed: no frame for too long
	DropStalled                  // TCP connection closed: peer takes nothing
	numDrops         int  = iota
)

var dropNames = [numDrops]string{
	"malformed", "truncated", "unknown media", "plaintext alert", "forged handshake",
	"source budget", "global budget", "control queue", "send buffer", "unreachable", "forbidden", "too large",
	"send error", "paused", "no path", "stream queue", "connection limit", "connections per source",
	"first frame", "frame size", "idle", "stalled",
}

// String returns the reason in words, usable as a metric label.
func (d Drop) String() string {
	if int(d) < len(dropNames) {
		return dropNames[d]
	}
	return "unknown"
}

// Drops counts by reason: packets, or connections where the reason says so.
type Drops [numDrops]uint64

// Stats are a mux's counters since Listen, and its state now.
type Stats struct {
	Sockets          int  // UDP sockets
	ReadBufferBytes  int  // the smallest receive buffer the kernel granted; 0 if unknown
	WriteBufferBytes int  // likewise for sending
	GSO              bool // every UDP socket still sends segmented messages

	// Destinations to which the latest message failed, of those the ones that are left alone
	// for now, and those that get no segmented messages for now; of up to 4,096 that had errors.
	FailingDestinations, PausedDestinations, UnsegmentedDestinations int

	RxPackets, RxBytes    uint64 // received by UDP and TCP
	RxMedia, RxControl    uint64 // of those, handed to the data plane and to ICE
	RxBatches             uint64 // reads that had something
	TxPackets, TxBytes    uint64 // media sent or queued for a TCP connection
	TxMessages            uint64 // UDP messages that took; a segmented one counts once
	GSOFallbacks          uint64 // segmented messages the kernel refused, sent again one by one
	TCPConns, TCPAccepted uint64 // connections now, and admitted so far

	Drops Drops
}

// counters are the live form of Stats.
type counters struct {
	rxPackets, rxBytes, rxMedia, rxControl, rxBatches    atomic.Uint64
	txPackets, txBytes, txMessages, fallbacks, acceptedN atomic.Uint64
	drops                                                [numDrops]atomic.Uint64
}

func (c *counters) drop(reason Drop) { c.drops[reason].Add(1) }

func (c *counters) addDrops(drops *Drops) {
	for reason, n := range drops {
		if n > 0 {
			c.drops[reason].Add(n)
		}
	}
}

// rxCounts are what one reading goroutine has counted since it last reported.
type rxCounts struct {
	packets, bytes, media, control uint64
	dropped                        bool
	drops                          Drops
}

func (r *rxCounts) drop(reason Drop) {
	r.drops[reason]++
	r.dropped = true
}

func (c *counters) addRx(rx *rxCounts) {
	c.rxBatches.Add(1)
	c.rxPackets.Add(rx.packets)
	c.rxBytes.Add(rx.bytes)
	if rx.media > 0 {
		c.rxMedia.Add(rx.media)
	}
	if rx.control > 0 {
		c.rxControl.Add(rx.control)
	}
	rx.packets, rx.bytes, rx.media, rx.control = 0, 0, 0, 0
	if rx.dropped {
		c.addDrops(&rx.drops)
		rx.drops, rx.dropped = Drops{}, false
	}
}

// txCounts are what one flush has counted.
type txCounts struct {
	packets, bytes, messages, fallbacks uint64
	dropped                             bool
	drops                               Drops
}

func (t *txCounts) drop(reason Drop, packets int) {
	t.drops[reason] += uint64(packets)
	t.dropped = true
}

func (c *counters) addTx(tx *txCounts) {
	c.txPackets.Add(tx.packets)
	c.txBytes.Add(tx.bytes)
	c.txMessages.Add(tx.messages)
	if tx.fallbacks > 0 {
		c.fallbacks.Add(tx.fallbacks)
	}
	if tx.dropped {
		c.addDrops(&tx.drops)
	}
}

func (c *counters) snapshotDrops() Drops {
	var drops Drops
	for i := range drops {
		drops[i] = c.drops[i].Load()
	}
	return drops
}

// reportInterval is the least time between two log lines with one reason.
const reportInterval = 10 * time.Second

// report logs what was dropped, at most one line for each reason and interval, until ctx ends, and
// forgets destinations that do well.
func (m *Mux) report(ctx context.Context) {
	c, log := &m.counters, m.cfg.Log
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	var drops dropLog
	var lastFallbacks uint64
	for {
		select {
		case <-tick.C:
			now := c.snapshotDrops()
			drops.tick(ctx, log, &now)
			if n := c.fallbacks.Load(); n > lastFallbacks {
				log.LogAttrs(ctx, slog.LevelWarn, "kernel refuses segmented messages, packets are sent one by one",
					slog.Uint64("count", n-lastFallbacks), slog.Uint64("total", n))
				lastFallbacks = n
			}
			m.dests.forget(m.now())
			m.sweepConnected()
		case <-ctx.Done():
			now := c.snapshotDrops()
			drops.end(ctx, log, &now)
			return
		}
	}
}

// maxReportPause is the longest time between two log lines with one reason, in intervals.
const maxReportPause = 30

// surge is how many times as much as usual is told of at once.
const surge = 10

// dropLog writes what was dropped: a line for each reason, and while there is more of it others after
// pauses that double, so that a flood does not fill the log. Each says what has come since the one before.
// Much more than that in an interval is news, and ends a pause.
type dropLog struct {
	seen, logged Drops            // as of the last interval, and of the last lines
	usual        [numDrops]uint64 // most in an interval, up to the last line
	pause        [numDrops]int    // in intervals; 0: it had an end
	left         [numDrops]int    // of it
}

// tick takes an interval, at whose end now was counted.
func (d *dropLog) tick(ctx context.Context, log *slog.Logger, now *Drops) {
	for reason := range now {
		fresh, n := now[reason]-d.seen[reason], now[reason]-d.logged[reason]
		d.seen[reason] = now[reason]
		if d.left[reason] > 0 {
			d.left[reason]--
		}
		if fresh > surge*(d.usual[reason]+1) {
			d.left[reason], d.pause[reason] = 0, 0
		}
		switch {
		case d.left[reason] > 0:
			continue
		case n == 0:
			d.pause[reason], d.usual[reason] = 0, 0
			continue
		}
		d.line(ctx, log, reason, n)
		d.usual[reason] = max(d.usual[reason], fresh)
		d.pause[reason] = min(max(1, 2*d.pause[reason]), maxReportPause)
		d.left[reason] = d.pause[reason]
	}
}

// end writes what has not been told.
func (d *dropLog) end(ctx context.Context, log *slog.Logger, now *Drops) {
	for reason := range now {
		if n := now[reason] - d.logged[reason]; n > 0 {
			d.line(ctx, log, reason, n)
		}
	}
}

func (d *dropLog) line(ctx context.Context, log *slog.Logger, reason int, n uint64) {
	d.logged[reason] += n
	log.LogAttrs(ctx, slog.LevelWarn, "media port dropped",
		slog.String("reason", Drop(reason).String()),
		slog.Uint64("count", n),
		slog.Uint64("total", d.logged[reason]))
}
