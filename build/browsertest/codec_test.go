package browsertest

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// smallerCamera has a page take about the smallest camera that Chromium sends in three layers: a
// machine that runs other tests beside cannot encode much more, in some of the codecs.
const smallerCamera = `
	const capture = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
	navigator.mediaDevices.getUserMedia = (c) => capture(c.video ? { video: { width: 1024, height: 576 } } : c);`

// The heights of that camera and of the canvas.
const (
	cameraHeight = 576
	screenHeight = 450
)

// Bert sees Anna's camera and screen in each codec that this browser can send, in full size.
func TestCodecs(t *testing.T) {
	path := chromium(t)
	d := startDemo(t)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	bert := open(ctx, t, path, d.link, "Bert", "")
	codecs, err := chromedp.Run(bert, chromedp.Evaluate[[]string](`sendableCodecs()`))
	if err != nil || len(codecs) == 0 {
		t.Fatalf("codecs of this browser: %q, %v", codecs, err)
	}
	t.Logf("this browser sends %q", codecs)
	for _, codec := range codecs {
		t.Run(codec, func(t *testing.T) {
			anna := open(ctx, t, path, d.link+"&codec="+codec, "Anna", smallerCamera)
			explain(t, anna)
			id := hears(t, anna, "Anna").id("Anna")

			do(t, anna, `void huddle.camera(true)`)
			answered(t, anna, "camera", codec)
			start := time.Now()
			all := func(s stats) bool {
				v := s.video("video", id)
				return v.Decoded > 0 && v.Codec == codec && v.Height == cameraHeight && v.Layer == "h"
			}
			until(t, bert, "Bert sees all of Anna", all)
			t.Logf("in full size after %v", time.Since(start).Round(100*time.Millisecond))
			sees(t, bert, "Bert sees Anna", "video", id)
			do(t, anna, `void huddle.screen(true, `+canvas+`)`)
			answered(t, anna, "screen", codec)
			sees(t, bert, "Bert sees Anna's screen", "screen", id)
			if got := look(t, bert).video("screen", id); got.Codec != codec || got.Height != screenHeight {
				t.Errorf("screen: %+v, want %s of height %d", got, codec, screenHeight)
			}
			until(t, bert, "Bert still sees all of Anna", all) // Anna's uplink may have had to grow
			layers(t, anna, codec, map[string]int{
				"video l": cameraHeight / 4, "video m": cameraHeight / 2, "video h": cameraHeight,
				"screen l": screenHeight, "screen h": screenHeight,
			})
		})
	}
}

// explain logs what a page sends, if the test fails.
func explain(t *testing.T, tab context.Context) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sent: %+v", look(t, tab).Sent)
		}
	})
}

// layers waits until a page sends layers of these heights, and all in a codec.
func layers(t *testing.T, tab context.Context, codec string, want map[string]int) {
	t.Helper()
	until(t, tab, "all layers are sent", func(s stats) bool {
		n := 0
		for _, l := range s.Sent {
			if l.Codec == codec && l.Bytes > 0 && l.Height == want[l.Type+" "+l.RID] {
				n++
			}
		}
		return n == len(want)
	})
}

// answered waits for the answer to the offer of our camera or screen. The codec has to be in it.
func answered(t *testing.T, tab context.Context, what, codec string) {
	t.Helper()
	// The section of the answer; '' before it is there.
	section := `(() => {
		const { pc, ` + what + `: transceiver } = app.call;
		if (!transceiver || !transceiver.mid || !pc.currentRemoteDescription) return '';
		const sections = pc.currentRemoteDescription.sdp.split(/(?=^m=)/m);
		return sections.find((s) => s.includes('a=mid:' + transceiver.mid + '\r\n')) || '';
	})()`
	counts(t, tab, "answer for the "+what, `+(`+section+` !== '')`, 1)
	has, err := chromedp.Run(tab, chromedp.Evaluate[bool](`/^a=rtpmap:\d+ `+codec+`\/90000/m.test(`+section+`)`))
	if err != nil {
		t.Fatal(err)
	}
	if !has {
		t.Fatalf("the answer for the %s lacks %s", what, codec)
	}
}

// withoutH264 has a page take no H.264, as a browser without that decoder.
const withoutH264 = `
	const others = RTCRtpReceiver.getCapabilities('video').codecs.filter((c) => c.mimeType !== 'video/H264');
	const describe = RTCPeerConnection.prototype.setRemoteDescription;
	RTCPeerConnection.prototype.setRemoteDescription = async function (d) {
		await describe.call(this, d);
		for (const t of this.getTransceivers()) {
			if (d.type === 'offer' && t.receiver.track.kind === 'video') t.setCodecPreferences(others);
		}
	};`

// Bert's browser does not take the codec of Anna's camera: he is told, and sees it when she takes
// another one.
func TestCodecThatABrowserDoesNotTake(t *testing.T) {
	path := chromium(t)
	d := startDemo(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	bert := open(ctx, t, path, d.link, "Bert", withoutH264)
	has, err := chromedp.Run(bert, chromedp.Evaluate[bool](`sendableCodecs().includes('H264')`))
	if err != nil {
		t.Fatal(err)
	}
	if !has {
		t.Skip("THIS BROWSER SENDS NO H.264: what one sees that does not take it was NOT tested")
	}
	told := `[...document.querySelectorAll('.picture .unsupported')].filter((e) => e.textContent.includes('H264')).length`

	anna := open(ctx, t, path, d.link+"&codec=H264", "Anna", smallerCamera)
	hears(t, anna, "Anna")
	do(t, anna, `void huddle.camera(true)`)
	counts(t, bert, "pictures that Bert is told he cannot see", told, 1)

	clara := open(ctx, t, path, d.link+"&codec=VP8", "Clara", smallerCamera)
	id := hears(t, clara, "Clara").id("Clara")
	do(t, clara, `void huddle.camera(true)`)
	sees(t, bert, "Bert sees Clara", "video", id)
	counts(t, bert, "pictures that Bert is still told he cannot see", told, 1)
	do(t, anna, `void huddle.camera(false)`)
	counts(t, bert, "pictures that Bert is told of after Anna's camera is off", told, 0)
}
