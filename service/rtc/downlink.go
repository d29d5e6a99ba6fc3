package rtc

import (
	"slices"
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
	want, changed := false, false
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
		changed = true
		if d.section != nil {
			s.leaving = append(s.leaving, d.section)
			// A voice that has gone is told with the next offer; there is no hurry to free a section.
			want = want || p.source != forward.Voice || p.withdrawn.Load()
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
			id: p.trackID, stream: p.owner.info.SessionID, kind: kindOf(p.source), codec: p.codec,
			bind: func(c forward.SubscriptionConfig) { s.post(func() { s.trackBound(d, c) }) },
			fail: func() { s.post(func() { s.trackRefused(p.codec) }) },
		}
		s.downlinks[p] = d
		want = true
	}
	if changed {
		s.call.touch()
	}
	if want {
		s.perform(s.machine.Want(time.Now()))
	}
	if s.untold { // and no offer tells it
		s.untold = false
		for _, p := range s.unsupported {
			s.log.Warn("endpoint does not take the codec of a video", "trackID", p.trackID, "codec", p.codec.mime)
		}
		_ = s.sendMediaMap()
	}
}

// wanted lists the publications of the others that this session is to be sent: all sound, and each
// video in the codec that suits it best. Videos in codecs that it does not take are noted, to be
// told.
func (s *session) wanted() []*publication {
	if !s.grant.maySubscribe() {
		return nil
	}
	published := *s.call.publications.Load()
	var out, unsupported []*publication
	for i, p := range published {
		switch {
		case p.owner == s:
		case kindOf(p.source) == webrtc.RTPCodecTypeAudio:
			out = append(out, p)
		case slices.ContainsFunc(published[:i], p.sameVideo): // was dealt with there
		default:
			of := []*publication{p}
			for _, q := range published[i+1:] {
				if p.sameVideo(q) {
					of = append(of, q)
				}
			}
			if best := s.choose(of); best != nil {
				out = append(out, best)
			} else {
				unsupported = append(unsupported, p)
			}
		}
	}
	if !slices.Equal(unsupported, s.unsupported) {
		s.unsupported, s.untold = unsupported, true
	}
	return out
}

// sameVideo reports whether p and q are the same picture, in two codecs.
func (p *publication) sameVideo(q *publication) bool {
	return p.owner == q.owner && p.source == q.source && kindOf(p.source) == webrtc.RTPCodecTypeVideo
}

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

// maxUntaken is how many codecs are remembered that an endpoint did not take: senders name them.
const maxUntaken = 64

// trackRefused: the endpoint has answered and does not take the codec. Perhaps there is another.
func (s *session) trackRefused(c codecName) {
	if !s.untaken[c] && len(s.untaken) < maxUntaken {
		s.untaken[c] = true
		s.reconcile()
	}
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
		d.config.MID = d.section.Mid()
		sub, err := p.media.Subscribe(s.media, d.config)
		if err != nil {
			s.tenant.Errored(metrics.TrackError)
			s.log.Debug("subscribe", "trackID", p.trackID, "err", err)
			return
		}
		d.sub = sub
		s.call.touch()
		codec := metricCodec(p.codec.mime)
		s.tenant.TrackStarted(metrics.Out, codec)
		d.counted = func() { s.tenant.TrackEnded(metrics.Out, codec) }
		return
	}
}

// track is a webrtc.TrackLocal that stands in descriptions; its packets take another way.
type track struct {
	id, stream string
	kind       webrtc.RTPCodecType
	codec      codecName
	bind       func(forward.SubscriptionConfig) // only posts
	fail       func()                           // likewise
}

func (t *track) ID() string                { return t.id }
func (t *track) RID() string               { return "" }
func (t *track) StreamID() string          { return t.stream }
func (t *track) Kind() webrtc.RTPCodecType { return t.kind }

// Bind is called when the endpoint has agreed to the track. An endpoint that does not take the
// codec is sent nothing; its answer stands all the same.
func (t *track) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	config, params, ok := engine.SubscriptionConfig(c, t.codec.mime, t.codec.fmtp)
	if !ok {
		t.fail()
		return params, webrtc.ErrUnsupportedCodec
	}
	t.bind(config)
	return params, nil
}

// Unbind is called when the track is taken away; the downlink has ended the flow before.
func (t *track) Unbind(webrtc.TrackLocalContext) error { return nil }
