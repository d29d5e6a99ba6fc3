//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/build/fire/field"
	"rtcd/client"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// pauseFrom is what is taken for a pause of a voice.
const pauseFrom = 200 * time.Millisecond

// pace is the time between two packets of a voice.
const pace = 20 * time.Millisecond

// Person is somebody in a call whose microphone is on, and perhaps a screen.
type Person struct {
	Name    string // is the session's id, too
	Call    string
	Backend *Backend
	Host    *field.Namespace

	cfg     rtctest.EndpointConfig
	e       *rtctest.Endpoint
	camera  *rtctest.Camera
	next    atomic.Uint32 // number of the next packet
	excited atomic.Bool
	silent  atomic.Bool
	stop    chan struct{}
	spoke   chan struct{} // closed once nothing is sent any more
	once    sync.Once

	mu         sync.Mutex
	heard      map[string]*hearing
	candidates []netip.AddrPort // that were told
}

// hearing is what came of one sender.
type hearing struct {
	got     []uint64 // a bit for each number
	last    time.Time
	longest time.Duration // between two packets, since the mark
	resumed []time.Time   // when something came after a pause, the last ones
	twice   int           // since the mark
	bad     int           // since the mark
}

// NewPerson makes a person who has joined and is not connected. With change its endpoint is another
// than usual.
func NewPerson(b *Backend, host *field.Namespace, call, name string, change func(*rtctest.EndpointConfig)) (*Person, error) {
	p, err := newPerson(b, host, call, name, change)
	if err != nil {
		return nil, err
	}
	err = b.Conn.Join(client.Join{
		CallID: call, UserID: "user-" + name, SessionID: name, DCSignaling: p.cfg.ChannelSignalling,
	})
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("join %s: %w", name, err)
	}
	return p, nil
}

func newPerson(b *Backend, host *field.Namespace, call, name string, change func(*rtctest.EndpointConfig)) (*Person, error) {
	network, err := host.Net()
	if err != nil {
		return nil, err
	}
	p := &Person{
		Name: name, Call: call, Backend: b, Host: host,
		stop: make(chan struct{}), spoke: make(chan struct{}), heard: make(map[string]*hearing),
	}
	p.cfg = rtctest.EndpointConfig{
		Net: network, OnSound: p.sound,
		Send: p.signal,
	}
	if change != nil {
		change(&p.cfg)
	}
	if p.e, err = rtctest.NewEndpoint(p.cfg); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	b.mu.Lock()
	b.people[name] = p
	b.mu.Unlock()
	return p, nil
}

func (p *Person) endpoint() *rtctest.Endpoint { return p.e }

// Endpoint is the person's.
func (p *Person) Endpoint() *rtctest.Endpoint { return p.e }

// Connect connects the person, turns the microphone on and begins to speak.
func (p *Person) Connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.e.Connect(ctx); err != nil {
		return fmt.Errorf("connect %s: %w", p.Name, err)
	}
	if err := p.e.Publish(ctx, "voice-of-"+p.Name); err != nil {
		return fmt.Errorf("turn the microphone of %s on: %w", p.Name, err)
	}
	go p.speak()
	return nil
}

// Screen is what a shared screen is like.
type Screen struct {
	Bitrate int // bit/s
	FPS     int
}

// Share shares a screen.
func (p *Person) Share(ctx context.Context, s Screen) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	stream := "scr-" + p.Name
	if err := p.Backend.Conn.ScreenOn(p.Name, stream); err != nil {
		return fmt.Errorf("announce the screen of %s: %w", p.Name, err)
	}
	camera, err := p.e.PublishCamera(ctx, rtctest.CameraConfig{
		StreamID: stream, Mime: webrtc.MimeTypeVP8, Layers: []rtctest.Layer{{Bitrate: s.Bitrate, FPS: s.FPS}},
	})
	if err != nil {
		return fmt.Errorf("share the screen of %s: %w", p.Name, err)
	}
	p.camera = camera
	return nil
}

// Shares reports whether the person shares a screen.
func (p *Person) Shares() bool { return p.camera != nil }

// speak sends a packet of the microphone each 20 ms.
func (p *Person) speak() {
	defer close(p.spoke)
	select {
	case <-time.After(rand.N(pace)): // not all at once
	case <-p.stop:
		return
	}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		if !p.silent.Load() {
			n := p.next.Load()
			level := uint8(60)
			if p.excited.Load() && n%2 == 0 {
				level = 10
			}
			if p.e.SendVoice(p.Name, n, level) == nil {
				p.next.Store(n + 1)
			}
		}
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

// Excite makes the level of the voice vary, so that it is taken for speech, or steady.
func (p *Person) Excite(on bool) { p.excited.Store(on) }

// Silence stops and restarts the sending of the voice.
func (p *Person) Silence(on bool) { p.silent.Store(on) }

// sound takes a packet of a voice.
func (p *Person) sound(sender string, n uint32, intact bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.heard[sender]
	if h == nil {
		h = &hearing{last: now}
		p.heard[sender] = h
	}
	if !intact || n > 1<<24 {
		h.bad++
		return
	}
	for int(n/64) >= len(h.got) {
		h.got = append(h.got, 0)
	}
	if h.got[n/64]&(1<<(n%64)) != 0 {
		h.twice++
		return
	}
	h.got[n/64] |= 1 << (n % 64)
	if gap := now.Sub(h.last); gap > pauseFrom {
		h.resumed = append(h.resumed[max(0, len(h.resumed)-9):], now)
	}
	h.longest = max(h.longest, now.Sub(h.last))
	h.last = now
}

// mark begins a measurement.
func (p *Person) mark(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.heard {
		h.longest, h.twice, h.bad, h.last = 0, 0, 0, now
	}
}

// missing counts the numbers from first to before end of a sender that did not come.
func (p *Person) missing(sender string, first, end uint32) (missing int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.heard[sender]
	if h == nil {
		return int(end - first)
	}
	for n := first; n < end; n++ {
		if int(n/64) >= len(h.got) || h.got[n/64]&(1<<(n%64)) == 0 {
			missing++
		}
	}
	return missing
}

// hearing returns a copy of what came of a sender.
func (p *Person) hearing(sender string) (h hearing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.heard[sender]; known != nil {
		h = *known
		h.got = nil
	}
	return h
}

// Gap returns the longest time without a packet of a sender since the mark, the time since the last
// one included.
func (p *Person) Gap(sender string) time.Duration {
	h := p.hearing(sender)
	if h.last.IsZero() {
		return 0
	}
	return max(h.longest, time.Since(h.last))
}

// Quiet stops the voice for good.
func (p *Person) Quiet() { p.once.Do(func() { close(p.stop) }) }

// Leave leaves the call and closes the endpoint.
func (p *Person) Leave() error {
	err := p.Backend.Conn.Leave(p.Name)
	p.Close()
	if errors.Is(err, client.ErrClosed) {
		return nil
	}
	return err
}

// Close closes the endpoint without a word to the server.
func (p *Person) Close() {
	p.Quiet()
	p.e.Close()
	p.Backend.mu.Lock()
	delete(p.Backend.people, p.Name)
	p.Backend.mu.Unlock()
}

// LocalPort is that of the socket over which media flows.
func (p *Person) LocalPort() (uint16, bool) {
	pair, ok := p.e.PC().SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if ok != nil || pair == nil {
		return 0, false
	}
	return pair.Local.Port, true
}

// VoiceSSRC is that of the voice that the person sends; 0 if there is none.
func (p *Person) VoiceSSRC() uint32 {
	for _, s := range p.e.PC().GetSenders() {
		if t := s.Track(); t != nil && t.Kind() == webrtc.RTPCodecTypeAudio {
			for _, e := range s.GetParameters().Encodings {
				return uint32(e.SSRC)
			}
		}
	}
	return 0
}

// Candidates are the addresses that the person has told the server so far.
func (p *Person) Candidates() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.candidates)
}

// signal sends what the endpoint signals, and keeps its addresses.
func (p *Person) signal(t wire.SignalType, data []byte) {
	if t == wire.SignalICE {
		// candidate:foundation component protocol priority address port typ …
		if c, err := wire.ParseCandidate(data); err == nil {
			if f := strings.Fields(c.Candidate); len(f) > 5 {
				if addr, err := netip.ParseAddrPort(f[4] + ":" + f[5]); err == nil && addr.Addr() == p.Host.Addr {
					p.mu.Lock()
					p.candidates = append(p.candidates, addr)
					p.mu.Unlock()
				}
			}
		}
	}
	_ = p.Backend.Conn.SendSignal(p.Name, t, data)
}

// OfferOf makes an offer for a connection from a host that nobody will answer.
func OfferOf(host *field.Namespace) (string, error) {
	network, err := host.Net()
	if err != nil {
		return "", err
	}
	e, err := rtctest.NewEndpoint(rtctest.EndpointConfig{Net: network, Send: func(wire.SignalType, []byte) {}})
	if err != nil {
		return "", err
	}
	defer e.Close()
	if _, err := e.PC().CreateDataChannel("calls-dc", nil); err != nil {
		return "", err
	}
	offer, err := e.PC().CreateOffer(nil)
	return offer.SDP, err
}

// KeyframesAsked returns how often the server asked for a keyframe of the screen so far.
func (p *Person) KeyframesAsked() int { return p.camera.KeyframesAsked(0) }
