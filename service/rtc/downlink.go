package rtc

import (
	"slices"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/metrics"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
)

// A downlink is one publication as this session receives it. It stands in the session's next
// offer, becomes a subscription when that is answered, and its section is given back with the
// first offer after the publication has ended.
type downlink struct {
	track   *track
	section *webrtc.RTPTransceiver // nil before it is in the peer connection
	config  forward.SubscriptionConfig
	bound   bool // config is known: the endpoint has answered
	sub     *forward.Subscription
	counted func() // takes back the metrics
}

func (d *downlink) close() {
	if d.sub != nil {
		d.sub.Close()
		d.sub = nil
	}
	if d.counted != nil {
		d.counted()
		d.counted = nil
	}
}

// reconcile brings the downlinks in line with what is published in the call. What that changes
// goes into one offer, whenever it is our turn.
func (s *session) reconcile() {
	if !s.channelOpen || s.ending.Load() {
		return
	}
	wanted := s.wanted()
	want := false
	keep := make(map[*publication]bool, len(wanted))
	for _, p := range wanted {
		keep[p] = true
	}
	for p, d := range s.downlinks {
		if keep[p] {
			continue
		}
		delete(s.downlinks, p)
		d.close()
		if d.section != nil {
			s.leaving = append(s.leaving, d.section)
			// A voice that has gone is told with the next offer; there is no hurry to free a section.
			want = want || p.source != forward.Voice
		}
	}
	for _, p := range wanted {
		if s.downlinks[p] != nil {
			continue
		}
		if len(s.downlinks) >= s.server.cfg.Limits.MediaSections {
			s.server.cfg.Metrics.LimitHit(LimitSections)
			break
		}
		d := &downlink{}
		d.track = &track{
			id: p.trackID, stream: p.owner.info.SessionID, kind: kindOf(p.source), mime: p.mime,
			bind: func(c forward.SubscriptionConfig) { s.post(func() { s.trackBound(d, c) }) },
		}
		s.downlinks[p] = d
		want = true
	}
	if want {
		s.perform(s.machine.Want(time.Now()))
	}
}

// wanted lists the publications of the others that this session is sent: all sound, and of each
// video the codec that it takes: AV1 if it said that it can and there is one, else VP8.
func (s *session) wanted() []*publication {
	published := *s.call.publications.Load()
	av1 := s.info.AV1Support != nil && *s.info.AV1Support
	var out []*publication
	for _, p := range published {
		if p.owner == s {
			continue
		}
		if kindOf(p.source) == webrtc.RTPCodecTypeVideo && isAV1(p.mime) != (av1 && hasAV1(published, p)) {
			continue
		}
		out = append(out, p)
	}
	return out
}

// hasAV1 reports whether the video of p is published in AV1, by p or beside it.
func hasAV1(published []*publication, p *publication) bool {
	return slices.ContainsFunc(published, func(q *publication) bool {
		return q.owner == p.owner && q.source == p.source && isAV1(q.mime)
	})
}

func isAV1(mime string) bool { return strings.EqualFold(mime, webrtc.MimeTypeAV1) }

// updateTracks puts all changes of the downlinks into the peer connection, for the next offer.
func (s *session) updateTracks() error {
	// Sections of tracks that leave are used again only once the endpoint knows, so the order of
	// removing and adding does not matter.
	for len(s.leaving) > 0 {
		section := s.leaving[0]
		s.leaving = s.leaving[1:]
		s.unsent = true
		if err := s.peer.RemoveTrack(section); err != nil {
			return err
		}
	}
	// In the order of publication, so that sections come in an order that can be foreseen.
	for _, p := range *s.call.publications.Load() {
		d := s.downlinks[p]
		if d == nil || d.section != nil {
			continue
		}
		section, err := s.peer.AddTrack(d.track)
		if err != nil {
			return err
		}
		d.section = section
		s.unsent = true
	}
	return nil
}

// trackBound: the endpoint has answered, packets may flow.
func (s *session) trackBound(d *downlink, c forward.SubscriptionConfig) {
	d.config, d.bound = c, true
	s.subscribe(d)
}

// subscribe starts the flow of a downlink that is ready for it.
func (s *session) subscribe(d *downlink) {
	if !s.connected || !d.bound || d.sub != nil {
		return
	}
	for p, e := range s.downlinks {
		if e != d {
			continue
		}
		sub, err := p.media.Subscribe(s.media, d.config)
		if err != nil {
			s.tenant.Errored(metrics.TrackError)
			s.log.Debug("subscribe", "trackID", p.trackID, "err", err)
			return
		}
		d.sub = sub
		codec := metricCodec(p.mime)
		s.tenant.TrackStarted(metrics.Out, codec)
		d.counted = func() { s.tenant.TrackEnded(metrics.Out, codec) }
		return
	}
}

// track is a webrtc.TrackLocal that stands in descriptions; its packets take another way.
type track struct {
	id, stream string
	kind       webrtc.RTPCodecType
	mime       string
	bind       func(forward.SubscriptionConfig) // only posts
}

func (t *track) ID() string                { return t.id }
func (t *track) RID() string               { return "" }
func (t *track) StreamID() string          { return t.stream }
func (t *track) Kind() webrtc.RTPCodecType { return t.kind }

// Bind is called when the endpoint has agreed to the track. An endpoint that does not take the
// codec is sent nothing; its answer stands all the same.
func (t *track) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, codec := range c.CodecParameters() {
		if !strings.EqualFold(codec.MimeType, t.mime) {
			continue
		}
		config := forward.SubscriptionConfig{SSRC: uint32(c.SSRC()), PayloadType: uint8(codec.PayloadType)}
		for _, ext := range c.HeaderExtensions() {
			if ext.URI == engine.ExtTWCC && ext.ID >= 1 && ext.ID <= 14 {
				config.Ext.TWCC = uint8(ext.ID)
			}
		}
		t.bind(config)
		return codec, nil
	}
	if all := c.CodecParameters(); len(all) > 0 {
		return all[0], nil
	}
	return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
}

// Unbind is called when the track is taken away; the downlink has ended the flow before.
func (t *track) Unbind(webrtc.TrackLocalContext) error { return nil }

func kindOf(s forward.Source) webrtc.RTPCodecType {
	if s == forward.Voice || s == forward.ScreenAudio {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}
