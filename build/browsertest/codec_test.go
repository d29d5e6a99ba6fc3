package browsertest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// What the fake camera and the canvas give, and the layers of the page that are made of it.
const (
	cameraHeight = 720
	screenHeight = 450
)

// layersTest names the variable that asks for what the server cannot do yet.
const layersTest = "RTCD_NETNS_TEST"

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
			if os.Getenv(layersTest) == "" && codec != "VP8" && codec != "AV1" {
				t.Skipf("%s IS NOT SET: what a browser sees in %s was NOT tested", layersTest, codec)
			}
			anna := open(ctx, t, path, d.link+"&codec="+codec, "Anna", "")
			id := hears(t, anna, "Anna").id("Anna")

			do(t, anna, `void huddle.camera(true)`)
			answered(t, anna, "camera", codec)
			want, layer := cameraHeight, "h"
			if os.Getenv(layersTest) == "" {
				want, layer = cameraHeight/4, "l"
			}
			until(t, bert, "Bert sees all of Anna", func(s stats) bool {
				v := s.video("video", id)
				return v.Decoded > 0 && v.Height == want && v.Layer == layer
			})
			sees(t, bert, "Bert sees Anna", "video", id)
			do(t, anna, `void huddle.screen(true, `+canvas+`)`)
			answered(t, anna, "screen", codec)
			sees(t, bert, "Bert sees Anna's screen", "screen", id)
			sees(t, bert, "Bert still sees Anna", "video", id)
			s := look(t, bert)
			if got := s.video("video", id); got.Codec != codec || got.Height != want {
				t.Errorf("camera: %+v, want %s of height %d", got, codec, want)
			}
			if got := s.video("screen", id); got.Codec != codec || got.Height != screenHeight {
				t.Errorf("screen: %+v, want %s of height %d", got, codec, screenHeight)
			}
			layers(t, anna, codec, map[string]int{
				"video l": cameraHeight / 4, "video m": cameraHeight / 2, "video h": cameraHeight,
				"screen l": screenHeight, "screen h": screenHeight,
			})
		})
	}
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

// answered waits for the answer to the offer of our camera or screen. It skips if a codec is not in it.
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
		t.Skipf("THE SERVER DOES NOT TAKE %s: what a browser sees in it was NOT tested", codec)
	}
}
