package rtc

import (
	"crypto/rand"
	"strings"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
)

// applySections tells the data plane which sections the endpoint may send on now, and ends the
// publications of those that are gone.
func (s *session) applySections() {
	sections := s.peer.Sections()
	s.sections = make(map[string]engine.Section, len(sections))
	uplinks := make([]forward.Uplink, 0, len(sections))
	for _, section := range sections {
		s.sections[section.MID] = section
		uplinks = append(uplinks, section.Uplink)
	}
	s.media.SetUplinks(uplinks)
	s.call.unpublish(s, func(p *publication) bool {
		_, ok := s.sections[p.mid]
		return !ok
	})
	s.call.dropWithdrawals(s, s.sections)
	for mid := range s.streams {
		if _, ok := s.sections[mid]; !ok {
			delete(s.streams, mid)
		}
	}
	s.publishStreams()
}

// streamStarted notes that packets of a section come, and publishes what that makes possible. An
// endpoint that goes over to another codec makes a new publication.
func (s *session) streamStarted(st forward.Stream) {
	s.streams[st.MID] = st
	s.call.unpublish(s, func(p *publication) bool {
		return p.mid == st.MID && kindOf(p.source) == webrtc.RTPCodecTypeVideo && p.codec != codecName{st.Mime, st.Fmtp}
	})
	s.publishStreams()
}

// publishStreams makes publications of the sections that send and of which it is known what they
// are: a video is that only once it was announced, which may be before or after its packets. What
// a publication is stays.
func (s *session) publishStreams() {
	for mid, st := range s.streams {
		section, ok := s.sections[mid]
		if !ok {
			continue
		}
		source, ok := s.sourceOf(section)
		if !ok || s.publishes(mid, source, st) || !s.call.allowed(s, mid, section.StreamID, source) {
			continue
		}
		s.publish(section, st, source)
	}
}

// sourceOf says what a section carries; false while that is not known.
func (s *session) sourceOf(section engine.Section) (forward.Source, bool) {
	screen := s.call.shares(s, section.StreamID)
	switch {
	case section.Audio && screen:
		return forward.ScreenAudio, true
	case section.Audio:
		return forward.Voice, true
	case screen:
		return forward.Screen, true
	case section.StreamID != "" && section.StreamID == s.videoStream:
		return forward.Camera, true
	}
	return 0, false
}

// publishes reports whether the section feeds a publication, or the session has one of that
// source and codec already.
func (s *session) publishes(mid string, source forward.Source, st forward.Stream) bool {
	for _, p := range *s.call.publications.Load() {
		sameCodec := strings.EqualFold(p.codec.mime, st.Mime) || kindOf(source) == webrtc.RTPCodecTypeAudio
		if p.owner == s && (p.mid == mid || p.source == source && sameCodec) {
			return true
		}
	}
	return false
}

func (s *session) publish(section engine.Section, st forward.Stream, source forward.Source) {
	p := &publication{
		trackID: source.String() + "_" + s.info.SessionID + "_" + randomID(8),
		source:  source,
		codec:   codecName{st.Mime, st.Fmtp},
		owner:   s,
		mid:     st.MID,
		stream:  section.StreamID,
	}
	cfg := forward.PublicationConfig{
		Source:    source,
		RIDs:      orderRIDs(section.RIDs),
		WriteTime: s.server.writeTime(s.info.GroupID, source),
	}
	if section.Audio {
		// Also if its first packet is redundant audio (RFC 2198), which others may not take.
		p.codec = codecName{mime: webrtc.MimeTypeOpus}
	}
	switch {
	case source == forward.Voice:
		cfg.OnVoice, cfg.Floor = s.voiceChanged, s.call.floor
	case kindOf(source) == webrtc.RTPCodecTypeVideo:
		cfg.Codec, cfg.PayloadType = codec.Of(st.Mime), st.PayloadType
	}
	media, err := s.media.Publish(st.MID, cfg)
	if err != nil {
		s.tenant.Errored(metrics.TrackError)
		s.log.Debug("publish", "mid", st.MID, "err", err)
		return
	}
	p.media = media
	s.tenant.TrackStarted(metrics.In, metricCodec(p.codec.mime))
	if !s.call.publish(p) {
		media.Close()
		s.trackEnded(p)
		return
	}
	s.log.Info("publication started", "source", source.String(), "mid", st.MID, "ssrc", st.SSRC, "codec", p.codec.mime)
}

// trackEnded takes back the metrics of a publication of this session.
func (s *session) trackEnded(p *publication) {
	s.tenant.TrackEnded(metrics.In, metricCodec(p.codec.mime))
}

// voiceChanged tells the backend who speaks. It comes from the data plane and only posts on.
func (s *session) voiceChanged(on bool) {
	t := wire.SignalVoiceOff
	if on {
		t = wire.SignalVoiceOn
	}
	s.emit(Event{Kind: Voice, Type: t})
}

// randomID returns n random characters of a-z0-9.
func randomID(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}
