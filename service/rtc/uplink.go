package rtc

import (
	"crypto/rand"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
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
}

// streamStarted makes a publication of a section whose first packet has come: what it is, is
// decided here and stays.
func (s *session) streamStarted(st forward.Stream) {
	section, ok := s.sections[st.MID]
	if !ok || !section.Audio {
		return // video is not forwarded
	}
	source := forward.Voice
	if s.call.shares(s, section.StreamID) {
		source = forward.ScreenAudio
	}
	for _, p := range *s.call.publications.Load() {
		if p.owner == s && (p.mid == st.MID || p.source == source) {
			return // the section goes on, or the session has one of these
		}
	}
	p := &publication{
		trackID: sourceName(source) + "_" + s.info.SessionID + "_" + randomID(8),
		source:  source,
		owner:   s,
		mid:     st.MID,
	}
	cfg := forward.PublicationConfig{Source: source, WriteTime: s.server.writeTime(s.info.GroupID, source)}
	if source == forward.Voice {
		cfg.OnVoice = s.voiceChanged
	}
	media, err := s.media.Publish(st.MID, cfg)
	if err != nil {
		s.tenant.Errored(metrics.TrackError)
		s.log.Debug("publish", "mid", st.MID, "err", err)
		return
	}
	p.media = media
	s.tenant.TrackStarted(metrics.In, metrics.Opus)
	if !s.call.publish(p) {
		media.Close()
		s.trackEnded(p)
		return
	}
	s.log.Info("publication started", "trackID", p.trackID, "mid", st.MID, "ssrc", st.SSRC)
}

// trackEnded takes back the metrics of a publication of this session.
func (s *session) trackEnded(*publication) { s.tenant.TrackEnded(metrics.In, metrics.Opus) }

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
