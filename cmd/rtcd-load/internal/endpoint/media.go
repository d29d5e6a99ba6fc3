package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"rtcd/client"
	"rtcd/service/rtc/channel"
)

// channelMessage takes a message of the data channel, on pion's goroutine.
func (e *Endpoint) channelMessage(m webrtc.DataChannelMessage) {
	if m.IsString {
		return
	}
	msg, err := channel.Decode(m.Data)
	if err != nil {
		if !errors.Is(err, channel.ErrUnknownType) {
			e.faulty(fmt.Errorf("data channel: %w", err))
		}
		return
	}
	switch msg.Type {
	case channel.SDP:
		e.Signal(client.Description{Data: msg.SDP})
	case channel.Lock:
		if msg.Granted != nil {
			select {
			case e.locks <- *msg.Granted:
			default: // more answers than questions
			}
		}
	}
}

// packed returns the data channel's message for a description.
func packed(s client.SDP) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode description: %w", err)
	}
	return channel.AppendSDP(nil, data)
}

// A Track is one stream that an endpoint publishes, of a simulcast perhaps.
type Track struct {
	track *webrtc.TrackLocalStaticRTP
	RID   string // "" unless it is one of several
	SSRC  uint32
}

// WriteRTP implements media.Writer.
func (t *Track) WriteRTP(p *rtp.Packet) error { return t.track.WriteRTP(p) }

// A Publication is what an endpoint publishes in one section.
type Publication struct {
	Tracks []*Track
	MID    string

	AudioLevelID, MIDID, RIDID uint8 // of header extensions; 0: not negotiated

	sender *webrtc.RTPSender
}

// PublishVoice publishes a microphone.
func (e *Endpoint) PublishVoice(ctx context.Context, stream string) (*Publication, error) {
	return e.publish(ctx, webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: opusClock, Channels: 2,
	}, stream, []string{""})
}

// PublishVideo publishes a camera or screen with a track for each RID, or one if there are none.
// asked is called when the server asks for a keyframe of a track, by its place.
func (e *Endpoint) PublishVideo(ctx context.Context, stream string, rids []string, asked func(track int)) (*Publication, error) {
	if len(rids) == 0 {
		rids = []string{""}
	}
	p, err := e.publish(ctx, webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: vp8Clock}, stream, rids)
	if err != nil {
		return nil, err
	}
	for i := range p.Tracks {
		e.wg.Go(func() { p.readFeedback(i, asked) })
	}
	return p, nil
}

func (e *Endpoint) publish(ctx context.Context, c webrtc.RTPCodecCapability, stream string, rids []string) (*Publication, error) {
	p := &Publication{}
	for _, rid := range rids {
		var options []func(*webrtc.TrackLocalStaticRTP)
		if rid != "" {
			options = append(options, webrtc.WithRTPStreamID(rid))
		}
		track, err := webrtc.NewTrackLocalStaticRTP(c, "track-"+stream, stream, options...)
		if err != nil {
			return nil, fmt.Errorf("make track: %w", err)
		}
		p.Tracks = append(p.Tracks, &Track{track: track, RID: rid})
	}
	err := e.locked(ctx, func() error {
		transceiver, err := e.add(p)
		if err != nil {
			return err
		}
		if err := e.offer(ctx); err != nil {
			return err
		}
		p.MID = transceiver.Mid()
		return nil
	})
	if err != nil {
		return nil, err
	}
	parameters := p.sender.GetParameters()
	for i, encoding := range parameters.Encodings {
		p.Tracks[i].SSRC = uint32(encoding.SSRC)
	}
	for _, extension := range parameters.HeaderExtensions {
		switch extension.URI {
		case extAudioLevel:
			p.AudioLevelID = uint8(extension.ID)
		case extMID:
			p.MIDID = uint8(extension.ID)
		case extRID:
			p.RIDID = uint8(extension.ID)
		}
	}
	return p, nil
}

// add adds the tracks to the connection, in a section of their own.
func (e *Endpoint) add(p *Publication) (*webrtc.RTPTransceiver, error) {
	e.negotiation.Lock()
	defer e.negotiation.Unlock()
	t, err := e.pc.AddTransceiverFromTrack(p.Tracks[0].track,
		webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, fmt.Errorf("add track: %w", err)
	}
	p.sender = t.Sender()
	for _, track := range p.Tracks[1:] {
		if err := p.sender.AddEncoding(track.track); err != nil {
			return nil, fmt.Errorf("add layer %s: %w", track.RID, err)
		}
	}
	return t, nil
}

// readFeedback reads the RTCP for a track until its sender ends: the interceptors see it, and
// requests for keyframes are told.
func (p *Publication) readFeedback(track int, asked func(int)) {
	read := p.sender.Read
	if len(p.Tracks) > 1 {
		rid := p.Tracks[track].RID
		read = func(b []byte) (int, interceptor.Attributes, error) { return p.sender.ReadSimulcast(b, rid) }
	}
	ssrc := p.Tracks[track].SSRC
	b := make([]byte, 1500)
	for {
		n, _, err := read(b)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(b[:n])
		if err != nil {
			continue // what is broken asks for nothing
		}
		for _, packet := range packets {
			if asksKeyframe(packet, ssrc) {
				asked(track)
			}
		}
	}
}

func asksKeyframe(packet rtcp.Packet, ssrc uint32) bool {
	switch packet := packet.(type) {
	case *rtcp.PictureLossIndication:
		return packet.MediaSSRC == ssrc
	case *rtcp.FullIntraRequest:
		for _, entry := range packet.FIR {
			if entry.SSRC == ssrc {
				return true
			}
		}
	}
	return false
}

// track reads what the server sends, on a goroutine of pion's.
func (e *Endpoint) track(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return // Close waits for what it knows
	}
	e.wg.Go(func() {
		var p rtp.Packet
		track := e.cfg.Receiver.Track()
		b := make([]byte, 1500)
		for {
			n, _, err := remote.Read(b)
			if err != nil {
				return
			}
			if err := p.Unmarshal(b[:n]); err != nil {
				continue // pion has parsed it before
			}
			if len(p.Payload) == 0 {
				track.Padding(p.SequenceNumber)
				continue
			}
			if track.Packet(p.SequenceNumber, p.Payload) {
				// A connection that is closed already is not asked.
				_ = e.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(remote.SSRC())}})
			}
		}
	})
}
