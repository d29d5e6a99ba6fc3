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
}

// AddAudio adds a track of audio under the lock.
func (e *Endpoint) AddAudio(ctx context.Context, streamID string) (*Source, error) {
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
	}, "audio", streamID)
	if err != nil {
		return nil, err
	}
	sender, err := e.add(ctx, track)
	if err != nil {
		return nil, err
	}
	s := &Source{track: track, sender: sender}
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
	return s.track.WriteRTP(&rtp.Packet{Header: h, Payload: Payload(sender, n)})
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
