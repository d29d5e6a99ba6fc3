package rtctest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// cameraTrack is a track that can send as another SSRC and codec than it was bound to.
type cameraTrack struct {
	*webrtc.TrackLocalStaticRTP

	mu     sync.Mutex
	bound  webrtc.TrackLocalContext    // nil before the first answer
	codecs []webrtc.RTPCodecParameters // that were agreed on: afterwards pion keeps only the track's
}

// Bind implements webrtc.TrackLocal.
func (t *cameraTrack) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	codecs := slices.Clone(c.CodecParameters())
	params, err := t.TrackLocalStaticRTP.Bind(c)
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.bound, t.codecs = c, codecs
	}
	return params, err
}

// payloadType returns the payload type that was agreed on for a codec.
func (t *cameraTrack) payloadType(mime, fmtp string) (uint8, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.codecs {
		if strings.EqualFold(c.MimeType, mime) && c.SDPFmtpLine == fmtp {
			return uint8(c.PayloadType), nil
		}
	}
	return 0, fmt.Errorf("codec %s %s was not agreed on", mime, fmtp)
}

// writeAs sends a packet with the SSRC and the payload type that it says.
func (t *cameraTrack) writeAs(p *rtp.Packet) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bound == nil {
		return errors.New("track is not bound")
	}
	_, err := t.bound.WriteStream().WriteRTP(&p.Header, p.Payload)
	return err
}

// replacement is what a layer is to be sent as from its next picture on.
type replacement struct {
	encoder     *encoder
	payloadType uint8
	ssrc        uint32
}

// Replace puts another camera in the place of this one, as senders do without negotiation. It sends
// the same layers, and begins with a keyframe. If fresh, its streams have SSRCs of their own, for
// which keyframes cannot be asked; else their numbers go on. Another codec than before is sent in
// the payload type that was agreed on for it.
func (c *Camera) Replace(cfg CameraConfig, fresh bool) error {
	if cfg.Source == "" {
		cfg.Source = cfg.StreamID
	}
	codec, err := newPacketizer(cfg.Mime)
	if err != nil {
		return err
	}
	epoch, salt := time.Now(), uint16(rand.Uint32())
	for i, l := range c.layers {
		pt, err := l.track.payloadType(cfg.Mime, formatParameters(cfg))
		if err != nil {
			return err
		}
		random := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
		en := newEncoder(cfg.Source, i, l.cfg, codec, random, salt, epoch)
		en.opaque = cfg.Opaque
		if cfg.Dependency {
			if err := en.describeDependencies(); err != nil {
				return err
			}
		}
		r := &replacement{encoder: en, payloadType: pt, ssrc: l.ssrc.Load()}
		if fresh {
			r.ssrc = rand.Uint32()
		}
		l.replaced.Store(r)
	}
	return nil
}

// replace goes over to what the layer is to be sent as, between two pictures.
func (l *cameraLayer) replace(r *replacement) {
	if r.ssrc == l.ssrc.Load() {
		old := l.encoder
		r.encoder.sequence, r.encoder.timestamp, r.encoder.epoch = old.sequence, old.timestamp, old.epoch
		r.encoder.pictureID, r.encoder.tl0 = old.pictureID, old.tl0
	}
	l.ssrc.Store(r.ssrc)
	l.encoder, l.as, l.started = r.encoder, r, 0
}
