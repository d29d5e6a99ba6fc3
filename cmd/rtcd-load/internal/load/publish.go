package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/cmd/rtcd-load/internal/scenario"
)

// publish starts all that the person sends. It returns the microphone, if there is one.
func (p *person) publish(ctx context.Context) (*media.Microphone, error) {
	timeout, cancel := context.WithTimeoutCause(ctx, joinTimeout, fmt.Errorf("after %v", joinTimeout))
	defer cancel()
	room := &p.run.o.Scenario.Rooms[p.plan.Shape]
	var microphone *media.Microphone
	if p.plan.Voice {
		var err error
		if microphone, err = p.speak(timeout, room.VoiceBytes); err != nil {
			return nil, fmt.Errorf("voice: %w", err)
		}
	}
	if p.plan.Camera {
		stream := "camera-" + p.session
		if err := p.run.conn.VideoOn(p.session, stream); err != nil {
			return microphone, err
		}
		if err := p.film(timeout, media.Camera, stream, room.Camera); err != nil {
			return microphone, fmt.Errorf("camera: %w", err)
		}
	}
	if p.plan.Screen {
		stream := "screen-" + p.session
		if err := p.run.conn.ScreenOn(p.session, stream); err != nil {
			return microphone, err
		}
		if err := p.film(timeout, media.Screen, stream, room.Screen); err != nil {
			return microphone, fmt.Errorf("screen: %w", err)
		}
	}
	return microphone, nil
}

func (p *person) speak(ctx context.Context, size int) (*media.Microphone, error) {
	publication, err := p.endpoint.PublishVoice(ctx, "voice-"+p.session)
	if err != nil {
		return nil, err
	}
	source := p.run.ledger.Add(p.plan.Room, p.number, media.Voice, 1)
	m := media.NewMicrophone(p.run.ledger, source, publication.Tracks[0], publication.AudioLevelID, size)
	p.start(m, m.Stop)
	return m, nil
}

func (p *person) film(ctx context.Context, kind media.Kind, stream string, v scenario.Video) error {
	layers, share := []string(nil), []float64{1}
	if v.Simulcast {
		layers, share = rids, shares
	}
	videos := make([]*media.Video, len(share))
	ready := make(chan struct{}) // closed once videos are there: feedback may come before
	publication, err := p.endpoint.PublishVideo(ctx, stream, layers, func(track int) {
		<-ready
		if videos[track] != nil {
			videos[track].AskKeyframe()
		}
	})
	defer close(ready)
	if err != nil {
		return err
	}
	source := p.run.ledger.Add(p.plan.Room, p.number, kind, len(share))
	for i, track := range publication.Tracks {
		videos[i] = media.NewVideo(p.run.ledger, source, track, media.VideoConfig{
			Layer: i, Bitrate: int(float64(v.Bitrate) * share[i]), FPS: v.FPS,
			MID: publication.MID, RID: track.RID, MIDID: publication.MIDID, RIDID: publication.RIDID,
		})
		p.start(videos[i], videos[i].Stop)
	}
	return nil
}

// start has a pacer run a task, at a moment of its own so that not all send at once.
func (p *person) start(t media.Task, stop func()) {
	p.mu.Lock()
	p.stops = append(p.stops, stop)
	p.mu.Unlock()
	pacer := p.run.pacers[p.number%len(p.run.pacers)]
	pacer.Add(t, media.Now()+rand.N(media.VoiceEvery)+time.Millisecond)
}
