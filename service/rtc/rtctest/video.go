package rtctest

import (
	"context"
	"errors"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// video is a picture that an endpoint sends.
type video struct {
	track *webrtc.TrackLocalStaticRTP
	next  rtp.Header
}

// PublishVideo adds a camera or screen of one codec under the lock. Announcing it is up to the
// caller.
func (e *Endpoint) PublishVideo(ctx context.Context, mime, streamID string) error {
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{
		MimeType: mime, ClockRate: 90000,
	}, "video-"+mime, streamID)
	if err != nil {
		return err
	}
	if _, err := e.add(ctx, track); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.videos == nil {
		e.videos = make(map[string]*video)
	}
	e.videos[streamID+" "+mime] = &video{track: track}
	return nil
}

// SendVideo sends packet number n of a picture, a frame of its own. Source is the name under which
// it is Heard.
func (e *Endpoint) SendVideo(mime, streamID, source string, n uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.videos[streamID+" "+mime]
	if v == nil {
		return errors.New("no such video")
	}
	h := rtp.Header{Version: 2, Marker: true, SequenceNumber: v.next.SequenceNumber, Timestamp: v.next.Timestamp}
	v.next.SequenceNumber++
	v.next.Timestamp += 3000
	return v.track.WriteRTP(&rtp.Packet{Header: h, Payload: Payload(source, n)})
}
