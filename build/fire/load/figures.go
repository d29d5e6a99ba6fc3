//go:build linux

package load

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/build/fire/field"
)

func suffix() string { return strings.ToLower(rand.Text()[:6]) }

// Figures is what is always measured.
type Figures struct {
	CallsBroken    int     `json:"calls_broken"`    // calls in which somebody does not hear somebody in the end
	SessionsClosed int     `json:"sessions_closed"` // that nobody asked for
	PacketsOwed    int     `json:"pkts_owed"`       // of voices, each to each
	PacketsLost    int     `json:"pkts_lost"`       // of these, by the server
	ServerOverflow int     `json:"srv_overflow"`    // datagrams that the server read too late
	ClientOverflow int     `json:"cli_overflow"`    // that endpoints read too late: those are ours, and among the lost
	PacketsTwice   int     `json:"pkts_twice"`
	PacketsBad     int     `json:"pkts_bad"`
	VideoMissing   int     `json:"video_missing"` // packets of screens that never came
	FramesLost     int     `json:"frames_lost"`   // of screens, that could not be decoded
	FrozenMs       int64   `json:"frozen_ms"`     // of the screen that froze longest
	GapMsMax       int64   `json:"gap_ms_max"`
	RecoverMs      int64   `json:"t_recover_ms"` // -1: nothing had to recover
	ResidentDelta  int64   `json:"rss_delta"`    // bytes, over the measurement
	GoroutineDelta int     `json:"goroutine_delta"`
	FileDelta      int     `json:"fd_delta"`
	LogLinesPerS   float64 `json:"log_lines_per_s"`
	LogLines       int     `json:"log_lines"`
	Panics         int     `json:"panics"`
	CPU            float64 `json:"cpu"` // cores
	Seconds        float64 `json:"seconds"`
}

// Window is a measurement that goes on.
type Window struct {
	party     *Party
	from      time.Time
	first     map[*Person]uint32 // number at the mark
	closed    map[*Backend]int
	left      map[string]bool // sessions that were meant to end
	excused   map[*Person]bool
	usage     Usage
	log       int64
	impairers []*field.Impairer
	dropped   []map[field.Flow]int
	video     map[Pair]seen
	people    []*Person
	overflows [2]int // of the server and of endpoints
}

// overflow counts what sockets dropped so far, the server's and those of endpoints.
func (p *Party) overflow() (n [2]int, err error) {
	if n[0], err = p.Server.cfg.Host.Overflows(); err != nil {
		return n, err
	}
	for _, host := range p.cfg.Clients {
		dropped, err := host.Overflows()
		if err != nil {
			return n, err
		}
		n[1] += dropped
	}
	return n, nil
}

// seen is what a viewer had of a screen.
type seen struct {
	missing, frames, decodable int
	frozen                     time.Duration
}

// Mark begins a measurement. What the impairers drop is not the server's loss.
func (p *Party) Mark(ctx context.Context, impairers ...*field.Impairer) (*Window, error) {
	w := &Window{
		party: p, first: make(map[*Person]uint32), closed: make(map[*Backend]int), left: make(map[string]bool),
		excused: make(map[*Person]bool), impairers: impairers, video: make(map[Pair]seen), log: p.Server.logSize(),
	}
	var err error
	if w.usage, err = p.Server.Usage(ctx); err != nil {
		return nil, err
	}
	if w.overflows, err = p.overflow(); err != nil {
		return nil, err
	}
	for _, b := range p.Backends {
		w.closed[b] = len(b.Closed())
	}
	for _, i := range impairers {
		w.dropped = append(w.dropped, i.Dropped())
	}
	for _, pair := range p.screens() {
		w.video[pair] = look(pair)
	}
	w.people = append(w.people, p.People...)
	w.from = time.Now()
	for _, q := range w.people {
		w.first[q] = q.next.Load()
	}
	for _, q := range w.people {
		q.mark(w.from)
	}
	return w, nil
}

func look(pair Pair) seen {
	v := pair.To.e.Viewed(pair.From.Name, "screen")
	return seen{missing: v.Missing, frames: v.Frames, decodable: v.Decodable, frozen: v.Frozen}
}

// Excuse leaves a person out: what is done to them is the fault that is injected.
func (w *Window) Excuse(people ...*Person) {
	for _, q := range people {
		w.excused[q] = true
	}
}

// Left says that the end of a session is meant.
func (w *Window) Left(session string) { w.left[session] = true }

// Pairs are those that are measured.
func (w *Window) Pairs() (out []Pair) {
	for _, pair := range w.party.Pairs() {
		if !w.excused[pair.From] && !w.excused[pair.To] {
			out = append(out, pair)
		}
	}
	return out
}

// settling is how long packets may be under way.
const settling = 700 * time.Millisecond

// Measure ends the measurement. Calls are given a while to be whole again.
func (w *Window) Measure(ctx context.Context, while time.Duration) (Figures, error) {
	f := Figures{RecoverMs: -1}
	pairs := w.Pairs()
	_, silent := w.party.Recovery(ctx, time.Now(), while, pairs)
	broken := make(map[string]bool)
	for _, pair := range silent {
		broken[pair.From.Backend.Name+"/"+pair.From.Call] = true
	}
	f.CallsBroken = len(broken)
	end := make(map[*Person]uint32)
	for _, q := range w.people {
		end[q] = q.next.Load()
	}
	select {
	case <-time.After(settling):
	case <-ctx.Done():
		return f, ctx.Err()
	}
	voices := make(map[uint32]bool) // SSRCs
	for _, pair := range pairs {
		f.PacketsOwed += int(end[pair.From] - w.first[pair.From])
		f.PacketsLost += pair.To.missing(pair.From.Name, w.first[pair.From], end[pair.From])
		h := pair.To.hearing(pair.From.Name)
		f.PacketsTwice += h.twice
		f.PacketsBad += h.bad
		f.GapMsMax = max(f.GapMsMax, pair.To.Gap(pair.From.Name).Milliseconds())
	}
	for _, q := range w.people {
		if !w.excused[q] {
			q.voices(voices)
		}
	}
	f.PacketsLost = max(0, f.PacketsLost-w.droppedVoices(voices, pairs))
	for pair, before := range w.video {
		if w.excused[pair.From] || w.excused[pair.To] {
			continue
		}
		now := look(pair)
		f.VideoMissing += now.missing - before.missing
		f.FramesLost += max(0, (now.frames-now.decodable)-(before.frames-before.decodable))
		f.FrozenMs = max(f.FrozenMs, (now.frozen - before.frozen).Milliseconds())
	}
	for b, n := range w.closed {
		for _, c := range b.Closed()[n:] {
			if !w.left[c.SessionID] {
				f.SessionsClosed++
			}
		}
	}
	overflows, err := w.party.overflow()
	if err != nil {
		return f, err
	}
	f.ServerOverflow, f.ClientOverflow = overflows[0]-w.overflows[0], overflows[1]-w.overflows[1]
	f.Seconds = time.Since(w.from).Seconds()
	log, err := w.party.Server.logged(w.log)
	if err != nil {
		return f, err
	}
	f.LogLines, f.Panics = log.Lines, log.Panics
	f.LogLinesPerS = float64(log.Lines) / f.Seconds
	if !w.party.Server.Alive() {
		return f, nil
	}
	usage, err := w.party.Server.Usage(ctx)
	if err != nil {
		return f, err
	}
	f.ResidentDelta = usage.Resident - w.usage.Resident
	f.GoroutineDelta = usage.Goroutines - w.usage.Goroutines
	f.FileDelta = usage.Files - w.usage.Files
	if d := usage.CPU - w.usage.CPU; d > 0 {
		f.CPU = d.Seconds() / f.Seconds
	}
	return f, nil
}

// voices adds the SSRCs of the voices that a person sends and is sent.
func (p *Person) voices(ssrcs map[uint32]bool) {
	for _, s := range p.e.PC().GetSenders() {
		if t := s.Track(); t == nil || t.Kind() != webrtc.RTPCodecTypeAudio {
			continue
		}
		for _, e := range s.GetParameters().Encodings {
			ssrcs[uint32(e.SSRC)] = true
		}
	}
	for _, r := range p.e.PC().GetReceivers() {
		if t := r.Track(); t != nil && t.Kind() == webrtc.RTPCodecTypeAudio {
			ssrcs[uint32(t.SSRC())] = true
		}
	}
}

// droppedVoices is how many packets of voices the impairers kept from pairs. One on its way to the
// server is missed by all that were owed it.
func (w *Window) droppedVoices(voices map[uint32]bool, pairs []Pair) (n int) {
	owed := make(map[uint32]int) // by SSRC of the sender: how many are owed its packets
	for _, pair := range pairs {
		for _, s := range pair.From.e.PC().GetSenders() {
			if t := s.Track(); t == nil || t.Kind() != webrtc.RTPCodecTypeAudio {
				continue
			}
			for _, e := range s.GetParameters().Encodings {
				owed[uint32(e.SSRC)]++
			}
		}
	}
	media := w.party.Server.Media()
	for i, impairer := range w.impairers {
		for flow, dropped := range impairer.Dropped() {
			dropped -= w.dropped[i][flow]
			switch {
			case !voices[flow.SSRC]:
			case flow.From == media:
				n += dropped
			default:
				n += dropped * owed[flow.SSRC]
			}
		}
	}
	return n
}

// Idle waits until the server, which everybody has left, is as it was before they came, and returns how
// it differs in the end: goroutines, descriptors and bytes of memory.
func (p *Party) Idle(ctx context.Context, most time.Duration) (goroutines, files int, resident int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		u, err := p.Server.Usage(context.WithoutCancel(ctx))
		if err != nil {
			return 0, 0, 0, err
		}
		goroutines, files, resident = u.Goroutines-p.idle.Goroutines, u.Files-p.idle.Files, u.Resident-p.idle.Resident
		if goroutines <= 0 && files <= 0 {
			return goroutines, files, resident, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return goroutines, files, resident, nil
		}
	}
}

// OnlyCalls makes ends of sessions count only if they are of people of the party.
func (w *Window) OnlyCalls() {
	ours := make(map[string]bool)
	for _, q := range w.people {
		ours[q.Name] = true
	}
	for b, n := range w.closed {
		for _, c := range b.Closed()[n:] {
			if !ours[c.SessionID] {
				w.left[c.SessionID] = true
			}
		}
	}
}
