package browsertest

import (
	"context"
	"testing"
	"time"
)

// addTracks has a page use addTrack for its videos, as many clients do: the browser then sends in a
// section that rtcd made to send in, if there is one in which it has sent nothing yet.
const addTracks = `
	window.reused = 0;
	window.RTCPeerConnection = class extends RTCPeerConnection {
		addTransceiver(track, { streams }) {
			const before = this.getTransceivers().length;
			const sender = this.addTrack(track, ...streams);
			if (this.getTransceivers().length === before) window.reused++;
			return this.getTransceivers().find((t) => t.sender === sender);
		}
	};`

// Browsers that send their videos in sections of rtcd's are seen, and see what came there before.
func TestVideoWhereRtcdSends(t *testing.T) {
	path := chromium(t)
	d := startDemo(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	anna := open(ctx, t, path, d.link, "Anna", smallerCamera+addTracks)
	bert := open(ctx, t, path, d.link, "Bert", smallerCamera+addTracks)
	hears(t, anna, "Anna")
	s := hears(t, bert, "Bert")
	idAnna, idBert := s.id("Anna"), s.id("Bert")
	do(t, anna, `huddle.camera(true)`)
	sees(t, bert, "Bert sees Anna", "video", idAnna)
	do(t, bert, `huddle.camera(true)`)
	sees(t, anna, "Anna sees Bert", "video", idBert)
	sees(t, bert, "Bert still sees Anna", "video", idAnna)
	counts(t, bert, "sections that rtcd and Bert send in", `window.reused`, 1)

	do(t, bert, `huddle.screen(true, `+canvas+`)`)
	sees(t, anna, "Anna sees Bert's screen", "screen", idBert)
	do(t, bert, `huddle.screen(false)`)
	until(t, anna, "the screen is gone", func(s stats) bool { return s.decoded("screen", idBert) < 0 && s.Sharer == "" })
	do(t, anna, `huddle.screen(true, `+canvas+`)`)
	sees(t, bert, "Bert sees Anna's screen", "screen", idAnna)
	sees(t, anna, "Anna still sees Bert", "video", idBert)
	sees(t, bert, "Bert sees Anna to the end", "video", idAnna)
}
