package rtctest

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/engine"
)

// Source is audio that an endpoint sends: a microphone, or the sound of a screen.
type Source struct {
	track  *webrtc.TrackLocalStaticRTP
	sender *webrtc.RTPSender

	mu      sync.Mutex
	levelID uint8
	next    rtp.Header
	red     bool   // sends redundant audio
	before  []byte // payload of the packet before; nil: there was none
}

// AddAudio adds a track of audio under the lock.
func (e *Endpoint) AddAudio(ctx context.Context, streamID string) (*Source, error) {
	return e.addAudio(ctx, webrtc.MimeTypeOpus, streamID)
}

// AddRedundantAudio is AddAudio for audio that is sent twice: each packet has the one before it, too
// (RFC 2198). The endpoint has to know that.
func (e *Endpoint) AddRedundantAudio(ctx context.Context, streamID string) (*Source, error) {
	return e.addAudio(ctx, mimeRED, streamID)
}

func (e *Endpoint) addAudio(ctx context.Context, mime, streamID string) (*Source, error) {
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{
		MimeType: mime, ClockRate: 48000, Channels: 2,
	}, "audio", streamID)
	if err != nil {
		return nil, err
	}
	sender, err := e.add(ctx, track)
	if err != nil {
		return nil, err
	}
	s := &Source{track: track, sender: sender, red: mime == mimeRED}
	for _, ext := range sender.GetParameters().HeaderExtensions {
		if ext.URI == engine.ExtAudioLevel {
			s.levelID = uint8(ext.ID)
		}
	}
	return s, nil
}

// add adds a track in an exchange of ours.
func (e *Endpoint) add(ctx context.Context, track webrtc.TrackLocal) (*webrtc.RTPSender, error) {
	e.negotiate.Lock()
	sender, err := e.pc.AddTrack(track)
	e.negotiate.Unlock()
	if err != nil {
		return nil, err
	}
	e.wg.Go(func() {
		b := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(b); err != nil {
				return
			}
		}
	})
	return sender, e.offer(ctx, true)
}

// Remove takes a track away again, under the lock.
func (e *Endpoint) Remove(ctx context.Context, s *Source) error {
	e.negotiate.Lock()
	err := e.pc.RemoveTrack(s.sender)
	e.negotiate.Unlock()
	if err != nil {
		return err
	}
	return e.offer(ctx, true)
}

// Publish adds a microphone.
func (e *Endpoint) Publish(ctx context.Context, streamID string) error {
	s, err := e.AddAudio(ctx, streamID)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.voice = s
	return nil
}

// SendVoice sends a packet of the microphone: see Source.Send.
func (e *Endpoint) SendVoice(sender string, n uint32, level uint8) error {
	e.mu.Lock()
	voice := e.voice
	e.mu.Unlock()
	if voice == nil {
		return errors.New("not publishing")
	}
	return voice.Send(sender, n, level)
}

// Send sends packet number n of the sender, with an audio level in -dBov.
func (s *Source) Send(sender string, n uint32, level uint8) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := rtp.Header{Version: 2, SequenceNumber: s.next.SequenceNumber, Timestamp: s.next.Timestamp}
	s.next.SequenceNumber++
	s.next.Timestamp += 960
	if s.levelID != 0 {
		if err := h.SetExtension(s.levelID, []byte{0x80 | level}); err != nil {
			return err
		}
	}
	payload := Payload(sender, n)
	if s.red {
		payload, s.before = redundant(s.before, payload), payload
	}
	return s.track.WriteRTP(&rtp.Packet{Header: h, Payload: payload})
}

// redundant is a payload with the one before it, if there was one, as RFC 2198 has it.
func redundant(before, payload []byte) []byte {
	const another = 1 << 31
	var b []byte
	if before != nil {
		b = binary.BigEndian.AppendUint32(b, another|payloadOpus<<24|960<<10|uint32(len(before)))
	}
	b = append(b, payloadOpus)
	return append(append(b, before...), payload...)
}

// Payload is what a sender's packet number n carries: the number, filler, and a checksum.
func Payload(sender string, n uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, n)
	b = append(b, sender...)
	for len(b) < 60+int(n%40) {
		b = append(b, byte(len(b))^byte(n))
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}
