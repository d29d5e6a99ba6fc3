//go:build linux

package endpoint

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Source is a track that is sent, or what looks like one on a bare socket.
type Source struct {
	kind    Kind
	sent    atomic.Uint64 // packets
	keyWant atomic.Bool   // somebody asked for a keyframe

	track   *webrtc.TrackLocalStaticRTP // nil: to is written to
	levelID uint8
	socket  *Socket
	to      netip.AddrPort

	header rtp.Header
	n      uint32 // packets
	frame  uint32
	sizes  []int
	buf    []byte
}

func (e *Endpoint) publish(i int, k Kind) (*Source, error) {
	capability := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	stream := "voice-of-" + e.ID
	if k.Video {
		capability = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
		stream = e.StreamID()
	}
	track, err := webrtc.NewTrackLocalStaticRTP(capability, fmt.Sprint("track", i), stream)
	if err != nil {
		return nil, err
	}
	transceiver, err := e.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, err
	}
	s := &Source{kind: k, track: track, header: rtp.Header{Version: 2, SequenceNumber: uint16(1000 * i)}}
	sender := transceiver.Sender()
	for _, ext := range sender.GetParameters().HeaderExtensions {
		if ext.URI == extAudioLevel && !k.Video {
			s.levelID = uint8(ext.ID)
		}
	}
	s.keyWant.Store(true)
	e.wg.Go(func() {
		for {
			packets, _, err := sender.ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range packets {
				switch p.(type) {
				case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
					s.keyWant.Store(true)
				}
			}
		}
	})
	return s, nil
}

// NewRawSource returns a source that sends datagrams from a socket, of the lengths that the packets
// of such a track have, encrypted, on their way from a server.
func NewRawSource(k Kind, socket *Socket, to netip.AddrPort) *Source {
	return &Source{kind: k, socket: socket, to: to}
}

// Kind returns what the source sends.
func (s *Source) Kind() Kind { return s.kind }

// Sent returns how many packets were sent.
func (s *Source) Sent() uint64 { return s.sent.Load() }

// Run sends so many frames a second until ctx ends, beginning after a delay. It goes on where it
// stopped.
func (s *Source) Run(ctx context.Context, fps float64, delay time.Duration) error {
	each := time.Duration(float64(time.Second) / fps)
	next := time.Now().Add(delay)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		// What is late is sent at once: a server is owed the rate.
		for now := time.Now(); !next.After(now); next = next.Add(each) {
			if err := s.sendFrame(); err != nil {
				return err
			}
		}
		timer.Reset(time.Until(next))
	}
}

// What an RTP packet has beside its payload, leaving a server: header, extensions, tag of GCM.
const rtpOverhead = 12 + 8 + 16

func (s *Source) sendFrame() error {
	s.sizes = s.kind.sizes(s.frame, s.sizes)
	key := s.kind.Video && s.keyWant.Swap(false)
	for i, size := range s.sizes {
		if err := s.send(size, i == 0, i == len(s.sizes)-1, key); err != nil {
			return err
		}
		s.n++
		s.sent.Add(1)
	}
	s.frame++
	s.header.Timestamp += s.clock() / uint32(s.kind.FramesPerSecond)
	return nil
}

func (s *Source) clock() uint32 {
	if s.kind.Video {
		return 90_000
	}
	return 48_000
}

func (s *Source) send(size int, first, last, key bool) error {
	if s.track == nil {
		for len(s.buf) < size+rtpOverhead {
			s.buf = append(s.buf, 0)
		}
		s.buf[0] = 0x80
		binary.BigEndian.PutUint16(s.buf[2:], uint16(s.n))
		if _, err := s.socket.WriteToAddrPort(s.buf[:size+rtpOverhead], s.to); err != nil {
			return fmt.Errorf("send a datagram: %w", err)
		}
		return nil
	}
	s.buf = appendPayload(s.buf[:0], s.kind.Video, s.n, size, first, key, uint16(s.frame&0x7fff))
	h := s.header
	h.Marker = s.kind.Video && last
	s.header.SequenceNumber++
	if s.levelID != 0 {
		if err := h.SetExtension(s.levelID, []byte{0x80 | 30}); err != nil {
			return fmt.Errorf("write an audio level: %w", err)
		}
	}
	if err := s.track.WriteRTP(&rtp.Packet{Header: h, Payload: s.buf}); err != nil {
		return fmt.Errorf("send a packet: %w", err)
	}
	return nil
}
