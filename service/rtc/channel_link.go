package rtc

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/pion/webrtc/v4"
	"golang.org/x/time/rate"

	"rtcd/service/metrics"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/negotiate"
)

// Limits on a data channel.
const (
	channelRate     = 50      // messages per second of an endpoint; beyond it, reading waits
	channelBurst    = 200     // of which at once
	maxChannelQueue = 1 << 20 // bytes that an endpoint may leave unread
	channelBuffer   = 1 << 10 // for reading, at first
)

// channelOffered takes the first data channel that the endpoint opens, whatever its label, and
// refuses all others. It runs on pion's goroutine and only posts.
func (s *session) channelOffered(dc *webrtc.DataChannel) {
	s.post(func() { s.takeChannel(dc) })
	dc.OnOpen(func() {
		s.post(func() {
			if s.channel == dc {
				s.channelOpened()
			}
		})
	})
}

func (s *session) takeChannel(dc *webrtc.DataChannel) {
	if s.channel == nil {
		s.channel = dc
		return
	}
	s.server.cfg.Metrics.LimitHit(LimitChannels)
	s.log.Debug("second data channel refused")
	if err := dc.Close(); err != nil {
		s.log.Debug("close data channel", "err", err)
	}
}

// channelOpened: from now on the channel is read, and the session gets tracks.
func (s *session) channelOpened() {
	in, err := s.channel.Detach()
	if err != nil {
		s.log.Error("detach data channel", "err", err)
		s.end(CloseInternal)
		return
	}
	s.reading.Go(func() { s.readChannel(in) })
	s.tenant.ObserveChannelOpen(time.Since(s.answered))
	s.channelOpen = true
	s.perform(s.machine.Ready(time.Now()))
	s.reconcile()
}

// detached is a data channel that pion does not read.
type detached interface {
	ReadDataChannel([]byte) (n int, text bool, err error)
	Close() error
}

// readChannel posts the messages of the endpoint until the channel ends. Most are small and hardly
// any are large, so the memory that waits for the next grows with the largest so far: what pion
// keeps ready for one is a quarter of an idle session.
func (s *session) readChannel(in detached) {
	limiter := rate.NewLimiter(channelRate, channelBurst)
	b := make([]byte, channelBuffer)
	for {
		n, text, err := in.ReadDataChannel(b)
		if errors.Is(err, io.ErrShortBuffer) && len(b) < channel.MaxMessage {
			b = make([]byte, min(2*len(b), channel.MaxMessage)) // the message waits
			continue
		}
		if err != nil {
			s.log.Debug("data channel ended", "err", err)
			_ = in.Close()
			return
		}
		if limiter.Tokens() < 1 {
			s.server.cfg.Metrics.LimitHit(LimitChannelRate)
		}
		if limiter.Wait(s.ctx) != nil {
			return // the session ends
		}
		m := webrtc.DataChannelMessage{Data: bytes.Clone(b[:n]), IsString: text}
		s.post(func() { s.channelMessage(m) })
	}
}

// channelMessage handles one message of the endpoint.
func (s *session) channelMessage(m webrtc.DataChannelMessage) {
	if string(m.Data) == channel.LegacyPing {
		s.write(func() error { return s.channel.SendText(channel.LegacyPong) })
		return
	}
	msg, err := channel.Decode(m.Data)
	if err != nil {
		s.refused("data channel message", err)
		return
	}
	switch msg.Type {
	case channel.Ping:
		s.sendChannel(channel.AppendPong(nil))
	case channel.SDP:
		s.description(msg.SDP, negotiate.DataChannel)
	case channel.Loss:
		s.tenant.ObserveClientLoss(msg.Value)
	case channel.RTT:
		s.tenant.ObserveClientRTT(msg.Value)
	case channel.Jitter:
		s.tenant.ObserveClientJitter(msg.Value)
	case channel.Lock:
		s.sendChannel(channel.AppendLockReply(nil, s.machine.Lock(time.Now())))
	case channel.Unlock:
		s.perform(s.machine.Unlock(time.Now()))
	}
}

// sendMediaMap tells the endpoint what it is going to be sent in which section, and what it is not
// because it does not take the codec.
func (s *session) sendMediaMap() error {
	media := make(map[string]channel.Media, len(s.downlinks))
	for p, d := range s.downlinks {
		if d.section != nil {
			media[d.section.Mid()] = channel.Media{Type: p.source.String(), SenderID: p.owner.info.SessionID}
		}
	}
	for _, p := range s.unsupported {
		media[p.trackID] = channel.Media{
			Type: p.source.String(), SenderID: p.owner.info.SessionID, Unsupported: p.codec.mime,
		}
	}
	s.sendChannel(channel.AppendMediaMap(nil, media))
	return nil
}

func (s *session) sendChannel(b []byte) {
	s.write(func() error { return s.channel.Send(b) })
}

// write sends on the channel unless the endpoint has left too much unread.
func (s *session) write(send func() error) {
	if s.channel.BufferedAmount() > maxChannelQueue {
		s.server.cfg.Metrics.LimitHit(LimitChannelQueue)
		s.end(CloseStalled)
		return
	}
	if err := send(); err != nil {
		s.tenant.Errored(metrics.SignalingError)
		s.log.Debug("send on the data channel", "err", err)
	}
}
