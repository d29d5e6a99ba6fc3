// Package rtctest has what tests of calls need: end users made of pion, a backend that relays for
// them in process, and a virtual network to put them in.
package rtctest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/transport/v4"
	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/codec"
)

// EndpointConfig describes an end user.
type EndpointConfig struct {
	// Send carries signalling to the server, as a backend would.
	Send func(wire.SignalType, []byte)
	// ChannelSignalling sends offers over the data channel once it is open.
	ChannelSignalling bool
	// Net is the endpoint's network; nil is the kernel's.
	Net transport.Net
	// TCPOnly leaves the endpoint no UDP.
	TCPOnly bool
	// NoLock negotiates without taking the lock, as old clients did.
	NoLock bool
	// OnMediaMap is called with each media map, before the offer it belongs to is answered.
	OnMediaMap func(map[string]channel.Media)
	// OnSound is called with each packet of a sound, once it is counted: which of its sender's it is,
	// and whether it is as it was sent.
	OnSound func(sender string, number uint32, intact bool)
	// IgnoreOffers leaves the server's offers unanswered while it returns true.
	IgnoreOffers func() bool
	// OnMessage is called with each message of the data channel, before anything is done with it.
	OnMessage func(webrtc.DataChannelMessage)
	// CandidatesFirst sends the endpoint's candidates before its first offer, which has none.
	CandidatesFirst bool
	// NoCandidates takes none of the server's candidates.
	NoCandidates bool
	// Codecs are the mime types of the video codecs that the endpoint knows; nil are all.
	Codecs []string
	// NoRepair leaves out the repair streams of RFC 4588.
	NoRepair bool
	// Dependency negotiates the dependency descriptor, for video.
	Dependency bool
	// RED makes the endpoint know redundant audio.
	RED bool
	// AudioNACK makes the endpoint ask for audio again, and send it again.
	AudioNACK bool
	// Bend changes the server's answers before they are applied, for endpoints that do not keep to
	// them.
	Bend func(sdp string) string
	// BendOffer changes the endpoint's offers before they are sent.
	BendOffer func(sdp string) string
	// NumberPackets counts what is sent in the transport-wide extension, as browsers do, so that
	// the server gives feedback.
	NumberPackets bool
}

// Endpoint is an end user: a pion peer connection that signals as clients of the wire do.
type Endpoint struct {
	cfg EndpointConfig
	pc  *webrtc.PeerConnection

	opened   chan struct{} // the data channel is open
	gathered chan struct{} // all candidates are sent
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	negotiate sync.Mutex // one exchange at a time, as a browser's signalling queue has it

	mu      sync.Mutex
	dc      *webrtc.DataChannel
	locks   chan bool   // answers to lock requests
	answers chan string // answers to our offers
	voice   *Source
	videos  map[string]*video // by stream id and codec
	media   map[string]channel.Media
	closing bool
	heard   map[string]*Heard
	views   map[string][]*viewing // by viewName
	changed chan struct{}         // closed and replaced when heard, media, offers or faults change
	faults  []error
	offers  int // of the server, answered

	described bool // there is a remote description
	early     []webrtc.ICECandidateInit
}

// Heard is what an endpoint got of one sender.
type Heard struct {
	Packets  int
	Bad      int // payloads that were not what the sender sends
	Gaps     int // steps in the sequence numbers other than one
	TrackIDs []string
	Codec    string
	last     uint16
	Numbers  []uint32 // that the sender counted its packets with

	Redundant int    // packets that came as redundant audio (RFC 2198)
	Timestamp uint32 // of the last packet
	// What the last sender report said: a time, and the timestamp that it is. Zero before one came.
	Reported          time.Time
	ReportedTimestamp uint32
}

// NewEndpoint makes an end user that is not connected.
func NewEndpoint(cfg EndpointConfig) (*Endpoint, error) {
	m, registry, err := cfg.media()
	if err != nil {
		return nil, err
	}
	s := webrtc.SettingEngine{LoggerFactory: quietLogs{}}
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	// As browsers have it. Pion's 64 packets are fewer than come before one that was lost is sent
	// again.
	s.SetSRTPReplayProtectionWindow(1024)
	s.SetSRTCPReplayProtectionWindow(1024)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	if cfg.TCPOnly {
		s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	if cfg.Net != nil {
		s.SetNet(cfg.Net)
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s))
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, fmt.Errorf("make peer connection: %w", err)
	}
	e := &Endpoint{
		cfg: cfg, pc: pc,
		opened:   make(chan struct{}),
		gathered: make(chan struct{}),
		locks:    make(chan bool, 16),
		answers:  make(chan string, 16),
		heard:    make(map[string]*Heard),
		changed:  make(chan struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	var once sync.Once
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			once.Do(func() { close(e.gathered) })
			return
		}
		init := c.ToJSON()
		data, err := wire.MarshalCandidate(wire.Candidate{
			Candidate: init.Candidate, SDPMid: init.SDPMid, SDPMLineIndex: init.SDPMLineIndex,
		})
		if err != nil {
			e.fault(err)
			return
		}
		cfg.Send(wire.SignalICE, data)
	})
	pc.OnTrack(e.track)
	return e, nil
}

// PC is the peer connection, for what tests want to look at or to break.
func (e *Endpoint) PC() *webrtc.PeerConnection { return e.pc }

// Connect makes the first exchange and waits for the open data channel.
func (e *Endpoint) Connect(ctx context.Context) error {
	dc, err := e.pc.CreateDataChannel("calls-dc", nil)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.dc = dc
	e.mu.Unlock()
	dc.OnOpen(func() { close(e.opened) })
	dc.OnMessage(func(m webrtc.DataChannelMessage) { e.channelMessage(m) })
	if err := e.offer(ctx, false); err != nil {
		return err
	}
	select {
	case <-e.opened:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("data channel did not open: %w", ctx.Err())
	}
}

// offer makes one exchange of ours.
func (e *Endpoint) offer(ctx context.Context, locked bool) error {
	if locked && !e.cfg.NoLock {
		if err := e.Lock(ctx); err != nil {
			return err
		}
		defer func() { _ = e.Unlock() }()
	}
	e.negotiate.Lock()
	defer e.negotiate.Unlock()
	offer, err := e.pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := e.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	if e.cfg.CandidatesFirst {
		select {
		case <-e.gathered:
		case <-ctx.Done():
			return fmt.Errorf("candidates not gathered: %w", ctx.Err())
		}
	}
	if err := e.describe(offer); err != nil {
		return err
	}
	select {
	case sdp := <-e.answers:
		if e.cfg.Bend != nil {
			sdp = e.cfg.Bend(sdp)
		}
		err := e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp})
		if err == nil {
			e.flushCandidates()
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// Lock takes the signalling lock, asking again as clients do.
func (e *Endpoint) Lock(ctx context.Context) error {
	for {
		granted, err := e.TryLock(ctx)
		if err != nil || granted {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond): // what clients of the wire wait
		case <-ctx.Done():
			return fmt.Errorf("no lock: %w", ctx.Err())
		}
	}
}

// TryLock asks for the signalling lock once.
func (e *Endpoint) TryLock(ctx context.Context) (bool, error) {
	if err := e.dc.Send(channel.AppendLockRequest(nil)); err != nil {
		return false, err
	}
	select {
	case granted := <-e.locks:
		return granted, nil
	case <-ctx.Done():
		return false, fmt.Errorf("no answer to a lock request: %w", ctx.Err())
	}
}

// Unlock gives the signalling lock back, held or not.
func (e *Endpoint) Unlock() error { return e.dc.Send(channel.AppendUnlock(nil)) }

// describe sends a description the way this endpoint signals.
func (e *Endpoint) describe(d webrtc.SessionDescription) error {
	if d.Type == webrtc.SDPTypeOffer && e.cfg.BendOffer != nil {
		d.SDP = e.cfg.BendOffer(d.SDP)
	}
	data, err := wire.Description{Type: d.Type.String(), SDP: d.SDP}.Marshal()
	if err != nil {
		return err
	}
	select {
	case <-e.opened:
		if e.cfg.ChannelSignalling {
			b, err := channel.AppendSDP(nil, data)
			if err != nil {
				return err
			}
			return e.dc.Send(b)
		}
	default:
	}
	e.cfg.Send(wire.SignalSDP, data)
	return nil
}

// Signal takes a message of the server that the backend relays.
func (e *Endpoint) Signal(t wire.SignalType, data []byte) {
	switch t {
	case wire.SignalSDP:
		e.description(data)
	case wire.SignalICE:
		if e.cfg.NoCandidates {
			return
		}
		c, err := wire.ParseCandidate(data)
		if err != nil {
			e.fault(fmt.Errorf("candidate %s: %w", data, err))
			return
		}
		e.candidate(webrtc.ICECandidateInit{Candidate: c.Candidate})
	}
}

// candidate adds a candidate, or keeps it until there is a description to add it to.
func (e *Endpoint) candidate(c webrtc.ICECandidateInit) {
	e.mu.Lock()
	if !e.described {
		e.early = append(e.early, c)
		e.mu.Unlock()
		return
	}
	e.mu.Unlock()
	if err := e.pc.AddICECandidate(c); err != nil && e.ctx.Err() == nil {
		e.fault(fmt.Errorf("candidate %s: %w", c.Candidate, err))
	}
}

// flushCandidates adds what came before the first answer.
func (e *Endpoint) flushCandidates() {
	e.mu.Lock()
	early := e.early
	e.early, e.described = nil, true
	e.mu.Unlock()
	for _, c := range early {
		e.candidate(c)
	}
}

func (e *Endpoint) description(data []byte) {
	d, err := wire.ParseDescription(data)
	if err != nil {
		e.fault(err)
		return
	}
	if d.Type == "answer" {
		e.answers <- d.SDP
		return
	}
	if e.cfg.IgnoreOffers != nil && e.cfg.IgnoreOffers() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing { // whoever waits for our goroutines is not to see new ones
		return
	}
	e.wg.Go(func() {
		if err := e.answer(d.SDP); err != nil && e.ctx.Err() == nil {
			e.fault(fmt.Errorf("answer an offer: %w", err))
		}
	})
}

func (e *Endpoint) answer(sdp string) error {
	e.negotiate.Lock()
	defer e.negotiate.Unlock()
	if e.ctx.Err() != nil {
		return nil
	}
	if err := e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
		return err
	}
	e.flushCandidates()
	answer, err := e.pc.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if err := e.pc.SetLocalDescription(answer); err != nil {
		return err
	}
	e.mu.Lock()
	e.offers++
	e.notifyLocked()
	e.mu.Unlock()
	return e.describe(answer)
}

func (e *Endpoint) channelMessage(m webrtc.DataChannelMessage) {
	if e.cfg.OnMessage != nil {
		e.cfg.OnMessage(m)
	}
	if m.IsString {
		return // the answer to a text ping
	}
	msg, err := channel.Decode(m.Data)
	if err != nil {
		e.fault(fmt.Errorf("data channel message %x: %w", m.Data, err))
		return
	}
	switch msg.Type {
	case channel.SDP:
		e.description(msg.SDP)
	case channel.Lock:
		if msg.Granted != nil {
			e.locks <- *msg.Granted
		}
	case channel.MediaMap:
		e.mu.Lock()
		e.media = msg.Media
		e.notifyLocked()
		e.mu.Unlock()
		if e.cfg.OnMediaMap != nil {
			e.cfg.OnMediaMap(msg.Media)
		}
	}
}

// track reads what the server sends.
func (e *Endpoint) track(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	if remote.Kind() == webrtc.RTPCodecTypeVideo {
		e.watch(remote, receiver)
		return
	}
	e.wg.Go(func() { e.readAudioReports(remote, receiver) })
	e.wg.Go(func() {
		first := true
		again := repeats(remote)
		var missing asker
		for {
			p, _, err := remote.ReadRTP()
			if err != nil {
				return
			}
			if again {
				now := time.Now()
				missing.arrived(p.SequenceNumber, now)
				e.ask(&missing, uint32(remote.SSRC()), now)
			}
			e.packet(remote, p, first)
			first = false
		}
	})
}

// heardName is under which name a track is heard.
func heardName(remote *webrtc.TrackRemote) string {
	parts := strings.Split(remote.ID(), "_")
	if len(parts) != 3 {
		return parts[0]
	}
	if parts[0] == "voice" {
		return parts[1]
	}
	return parts[1] + "/" + parts[0]
}

func (e *Endpoint) heardLocked(sender string) *Heard {
	h := e.heard[sender]
	if h == nil {
		h = &Heard{}
		e.heard[sender] = h
	}
	return h
}

// readAudioReports reads the RTCP of a sound until it ends.
func (e *Endpoint) readAudioReports(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	name := heardName(remote)
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == uint32(remote.SSRC()) {
				e.mu.Lock()
				h := e.heardLocked(name)
				h.Reported, h.ReportedTimestamp = ntpTime(sr.NTPTime), sr.RTPTime
				e.mu.Unlock()
			}
		}
	}
}

func (e *Endpoint) packet(remote *webrtc.TrackRemote, p *rtp.Packet, first bool) {
	sender := heardName(remote)
	n, intact := e.count(sender, remote, p, first)
	if e.cfg.OnSound != nil {
		e.cfg.OnSound(sender, n, intact)
	}
}

// count adds a packet to what was heard of a sender.
func (e *Endpoint) count(sender string, remote *webrtc.TrackRemote, p *rtp.Packet, first bool) (n uint32, intact bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.heardLocked(sender)
	if first {
		h.TrackIDs = append(h.TrackIDs, remote.ID())
	} else if p.SequenceNumber != h.last+1 {
		h.Gaps++
	}
	h.last, h.Timestamp = p.SequenceNumber, p.Timestamp
	h.Codec = remote.Codec().MimeType
	h.Packets++
	payload := p.Payload
	if strings.EqualFold(remote.Codec().MimeType, mimeRED) {
		h.Redundant++
		payload, _ = codec.REDPrimary(payload)
	}
	if len(payload) >= 4 {
		n = binary.BigEndian.Uint32(payload)
	}
	h.Numbers = append(h.Numbers, n)
	intact = string(payload) == string(Payload(sender, n))
	if !intact {
		h.Bad++
	}
	e.notifyLocked()
	return n, intact
}

func (e *Endpoint) notifyLocked() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Heard returns what came of a sender so far: of its voice, or of its screen's audio for the name
// with "/screen-audio" behind it.
func (e *Endpoint) Heard(sender string) Heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h := e.heard[sender]; h != nil {
		out := *h
		out.Numbers = append([]uint32(nil), h.Numbers...)
		return out
	}
	return Heard{}
}

// Await waits until ok holds of what was heard, of the media map or of the number of offers.
func (e *Endpoint) Await(ctx context.Context, ok func(heard func(sender string) Heard) bool) error {
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		if ok(e.Heard) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Channel sends bytes on the data channel.
func (e *Endpoint) Channel(b []byte) error { return e.dc.Send(b) }

// MediaMap is the last that came.
func (e *Endpoint) MediaMap() map[string]channel.Media {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.media
}

// Offers is how many offers of the server were answered.
func (e *Endpoint) Offers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.offers
}

func (e *Endpoint) fault(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, err)
	e.notifyLocked()
}

// Err is what went wrong so far.
func (e *Endpoint) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(e.faults...)
}

// Close ends the endpoint and waits for its goroutines.
func (e *Endpoint) Close() {
	e.cancel()
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	_ = e.pc.GracefulClose()
	e.wg.Wait()
}
