package rtctest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/engine"
)

// ExtDependency is the URI of the dependency descriptor (AV1 RTP payload format, appendix A).
const ExtDependency = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

// identified is how many packets of each stream of a simulcast say what they are. A sender does so
// until it knows that the other side has understood.
const identified = 100

// behind is how late a camera's pictures may become before it leaves some out.
const behind = 200 * time.Millisecond

// CameraConfig describes a synthetic camera or screen.
type CameraConfig struct {
	StreamID string
	Source   string // name that the packets carry, at most 20 bytes; "" is StreamID
	Mime     string // video/VP8, video/VP9, video/H264, video/AV1
	Fmtp     string // format parameters; "" are the usual ones of the codec
	Layers   []Layer

	// Opaque makes payloads that show nothing but the payload descriptors of VP8 and VP9, as those
	// of end-to-end encryption.
	Opaque bool
	// Dependency sends the dependency descriptor if it was negotiated. It is known for layers
	// without spatial and temporal ones, with 3 temporal ones, and with 3 of both.
	Dependency bool
}

// Layer is an encoding of a camera: a stream of a simulcast, or the only one.
type Layer struct {
	RID       string // "" if it is the only one
	Bitrate   int    // bit/s of all its spatial layers, without keyframes and headers
	FPS       int
	Temporals int // temporal layers, 1 to 3; 0: 1
	Spatials  int // spatial layers, 1 to 3, of VP9 and AV1; 0: 1
	// Apart makes spatial layers refer to those below in keyframes only, as L3T3_KEY has it.
	Apart bool
}

// Sent is what a camera did for a layer.
type Sent struct {
	Packets, Bytes int // of payload
	Pictures       int
	Keyframes      int // that were sent
	Asked          int // PLI and FIR that came
}

// Camera is a synthetic camera that an endpoint publishes. It sends until it is stopped or the
// endpoint is closed. Its methods are safe for concurrent use.
type Camera struct {
	endpoint *Endpoint
	sender   *webrtc.RTPSender
	layers   []*cameraLayer
	cancel   context.CancelFunc
	done     chan struct{}
	wake     chan struct{} // holds one: a layer was switched on
}

type cameraLayer struct {
	cfg   Layer
	track *cameraTrack
	ssrc  atomic.Uint32

	asked    atomic.Bool // for a keyframe
	off      atomic.Bool
	replaced atomic.Pointer[replacement] // that is still to be made

	mu   sync.Mutex
	sent Sent

	// The sending goroutine's.
	encoder *encoder
	as      *replacement // that was made last; nil: none
	period  time.Duration
	next    time.Time // of the next picture
	queue   []coming
	started int // packets sent
}

// PublishCamera adds a camera under the lock and begins to send. Announcing it is up to the caller.
func (e *Endpoint) PublishCamera(ctx context.Context, cfg CameraConfig) (*Camera, error) {
	if len(cfg.Layers) == 0 {
		return nil, errors.New("publish a camera: no layers")
	}
	if cfg.Source == "" {
		cfg.Source = cfg.StreamID
	}
	codec, err := newPacketizer(cfg.Mime)
	if err != nil {
		return nil, err
	}
	c := &Camera{endpoint: e, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	epoch := time.Now()
	salt := uint16(rand.Uint32())
	for i, layer := range cfg.Layers {
		var options []func(*webrtc.TrackLocalStaticRTP)
		if layer.RID != "" {
			options = append(options, webrtc.WithRTPStreamID(layer.RID))
		}
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{
			MimeType: cfg.Mime, ClockRate: videoClock, SDPFmtpLine: formatParameters(cfg),
		}, "camera-"+cfg.StreamID, cfg.StreamID, options...)
		if err != nil {
			return nil, err
		}
		random := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
		en := newEncoder(cfg.Source, i, layer, codec, random, salt, epoch)
		en.opaque = cfg.Opaque
		if cfg.Dependency {
			if err := en.describeDependencies(); err != nil {
				return nil, err
			}
		}
		c.layers = append(c.layers, &cameraLayer{
			cfg: layer, encoder: en, track: &cameraTrack{TrackLocalStaticRTP: track}, next: epoch,
			period: time.Second / time.Duration(max(layer.FPS, 1)),
		})
	}
	if err := c.add(e); err != nil {
		return nil, err
	}
	sendCtx, cancel := context.WithCancel(e.ctx)
	c.cancel = cancel
	for i, encoding := range c.sender.GetParameters().Encodings {
		c.layers[i].ssrc.Store(uint32(encoding.SSRC))
		e.wg.Go(func() { c.readReports(c.layers[i]) })
	}
	if err := e.offer(ctx, true); err != nil {
		cancel()
		return nil, err
	}
	e.wg.Go(func() {
		defer close(c.done)
		c.run(sendCtx, cfg.Dependency)
	})
	return c, nil
}

// formatParameters are those that pion's default codecs have.
func formatParameters(cfg CameraConfig) string {
	switch {
	case cfg.Fmtp != "":
		return cfg.Fmtp
	case strings.EqualFold(cfg.Mime, webrtc.MimeTypeH264):
		return "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	case strings.EqualFold(cfg.Mime, webrtc.MimeTypeVP9):
		return "profile-id=0"
	default:
		return ""
	}
}

// add adds the tracks to the peer connection.
func (c *Camera) add(e *Endpoint) error {
	e.negotiate.Lock()
	defer e.negotiate.Unlock()
	if len(c.layers) == 1 {
		sender, err := e.pc.AddTrack(c.layers[0].track)
		c.sender = sender
		return err
	}
	transceiver, err := e.pc.AddTransceiverFromTrack(c.layers[0].track,
		webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return err
	}
	c.sender = transceiver.Sender()
	for _, l := range c.layers[1:] {
		if err := c.sender.AddEncoding(l.track); err != nil {
			return fmt.Errorf("add layer %s: %w", l.track.RID(), err)
		}
	}
	return nil
}

// Layers is how many layers the camera has.
func (c *Camera) Layers() int { return len(c.layers) }

// Sent returns what was sent of a layer so far.
func (c *Camera) Sent(layer int) Sent {
	l := c.layers[layer]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// KeyframesAsked is how often keyframes of a layer were asked for.
func (c *Camera) KeyframesAsked(layer int) int { return c.Sent(layer).Asked }

// SSRC is that of a layer.
func (c *Camera) SSRC(layer int) uint32 { return c.layers[layer].ssrc.Load() }

// Enable switches a layer off, or on again with a keyframe, as senders do without negotiation.
func (c *Camera) Enable(layer int, on bool) {
	l := c.layers[layer]
	if on {
		l.asked.Store(true)
	}
	l.off.Store(!on)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Stop ends the sending, without negotiation.
func (c *Camera) Stop() {
	c.cancel()
	<-c.done
}

// Unpublish stops the camera and takes its section away, under the lock.
func (c *Camera) Unpublish(ctx context.Context) error {
	c.Stop()
	c.endpoint.negotiate.Lock()
	err := c.endpoint.pc.RemoveTrack(c.sender)
	c.endpoint.negotiate.Unlock()
	if err != nil {
		return err
	}
	return c.endpoint.offer(ctx, true)
}

// readReports reads the RTCP for a layer until its sender ends.
func (c *Camera) readReports(l *cameraLayer) {
	read := c.sender.Read
	if rid := l.track.RID(); rid != "" && len(c.layers) > 1 {
		read = func(b []byte) (int, interceptor.Attributes, error) {
			n, a, err := c.sender.ReadSimulcast(b, rid)
			return n, a, err
		}
	}
	b := make([]byte, 1500)
	for {
		n, _, err := read(b)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(b[:n])
		if err != nil {
			c.endpoint.fault(fmt.Errorf("RTCP %x: %w", b[:n], err))
			continue
		}
		for _, p := range packets {
			if asksKeyframe(p, l.ssrc.Load()) {
				l.mu.Lock()
				l.sent.Asked++
				l.mu.Unlock()
				l.asked.Store(true)
			}
		}
	}
}

// asksKeyframe reports whether the packet asks for a keyframe of the stream.
func asksKeyframe(p rtcp.Packet, ssrc uint32) bool {
	switch p := p.(type) {
	case *rtcp.PictureLossIndication:
		return p.MediaSSRC == ssrc
	case *rtcp.FullIntraRequest:
		for _, entry := range p.FIR {
			if entry.SSRC == ssrc {
				return true
			}
		}
	}
	return false
}

// run sends until ctx is done.
func (c *Camera) run(ctx context.Context, dependency bool) {
	var ids extensionIDs
	for _, ext := range c.sender.GetParameters().HeaderExtensions {
		switch ext.URI {
		case engine.ExtMID:
			ids.mid = uint8(ext.ID)
		case engine.ExtRID:
			ids.rid = uint8(ext.ID)
		case ExtDependency:
			if dependency {
				ids.dependency = uint8(ext.ID)
			}
		}
	}
	mid := ""
	for _, t := range c.endpoint.pc.GetTransceivers() {
		if t.Sender() == c.sender {
			mid = t.Mid()
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		next := now.Add(time.Hour)
		for _, l := range c.layers {
			if due := l.step(now, mid, ids); due.Before(next) {
				next = due
			}
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}

// extensionIDs are those of the header extensions that a camera sends; 0: not negotiated.
type extensionIDs struct{ mid, rid, dependency uint8 }

// step makes and sends what is due, and returns when the next is.
func (l *cameraLayer) step(now time.Time, mid string, ids extensionIDs) time.Time {
	if late := now.Add(-behind); l.next.Before(late) || l.off.Load() && !l.next.After(now) {
		l.next = now
		if l.off.Load() {
			l.next = now.Add(l.period)
		}
	}
	if !l.next.After(now) {
		if r := l.replaced.Load(); r != nil && len(l.queue) == 0 && l.replaced.CompareAndSwap(r, nil) {
			l.replace(r)
		}
		key := l.asked.Swap(false)
		picture := l.encoder.next(l.next, key)
		key = key || l.encoder.picture == 1
		// Paced over half the time until the next picture, a keyframe over all of it.
		gap := l.period / time.Duration(len(picture)) / 2
		if key {
			gap *= 2
		}
		for i := range picture {
			picture[i].due = l.next.Add(time.Duration(i) * gap)
		}
		l.queue = append(l.queue, picture...)
		l.next = l.next.Add(l.period)
		l.mu.Lock()
		l.sent.Pictures++
		if key {
			l.sent.Keyframes++
		}
		l.mu.Unlock()
	}
	sent := 0
	for sent < len(l.queue) && !l.queue[sent].due.After(now) {
		l.write(&l.queue[sent], mid, ids)
		sent++
	}
	l.queue = append(l.queue[:0], l.queue[sent:]...)
	if len(l.queue) > 0 && l.queue[0].due.Before(l.next) {
		return l.queue[0].due
	}
	return l.next
}

// write sends a packet. A closed connection is not its business.
func (l *cameraLayer) write(p *coming, mid string, ids extensionIDs) {
	h := &p.packet.Header
	dependency := ids.dependency != 0 && p.dependency != nil
	identify := (l.track.RID() != "" || l.as != nil) && l.started < identified
	if dependency && len(p.dependency) > 16 {
		h.Extension, h.ExtensionProfile = true, rtp.ExtensionProfileTwoByte
	}
	if identify && ids.mid != 0 {
		_ = h.SetExtension(ids.mid, []byte(mid))
	}
	if identify && ids.rid != 0 && l.track.RID() != "" {
		_ = h.SetExtension(ids.rid, []byte(l.track.RID()))
	}
	if dependency {
		_ = h.SetExtension(ids.dependency, p.dependency)
	}
	l.started++
	l.mu.Lock()
	l.sent.Packets++
	l.sent.Bytes += len(p.packet.Payload)
	l.mu.Unlock()
	if l.as == nil {
		_ = l.track.WriteRTP(&p.packet)
		return
	}
	h.SSRC, h.PayloadType = l.as.ssrc, l.as.payloadType
	_ = l.track.writeAs(&p.packet)
}
