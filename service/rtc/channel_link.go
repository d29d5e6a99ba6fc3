package rtc

import (
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
)

// channelOffered takes the first data channel that the endpoint opens, whatever its label, and
// refuses all others. It runs on pion's goroutine, before the first message is read, and only
// posts: the handlers have to be in place when it returns, or messages are lost.
func (s *session) channelOffered(dc *webrtc.DataChannel) {
	s.post(func() { s.takeChannel(dc) })
	limiter := rate.NewLimiter(channelRate, channelBurst)
	dc.OnMessage(func(m webrtc.DataChannelMessage) {
		if limiter.Wait(s.ctx) != nil {
			return // the session ends
		}
		s.post(func() {
			if s.channel == dc {
				s.channelMessage(m)
			}
		})
	})
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

// channelOpened: from now on the session gets tracks.
func (s *session) channelOpened() {
	s.tenant.ObserveChannelOpen(time.Since(s.answered))
	s.channelOpen = true
	s.perform(s.machine.Ready(time.Now()))
	s.reconcile()
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
