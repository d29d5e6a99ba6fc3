package browsertest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// canvas is a screen for browsers that have none: a picture that changes all the time.
const canvas = `(() => {
	const canvas = Object.assign(document.createElement('canvas'), { width: 800, height: 450 });
	const paint = canvas.getContext('2d');
	let n = 0;
	setInterval(() => {
		paint.fillStyle = 'hsl(' + n++ * 7 % 360 + ' 60% 50%)';
		paint.fillRect(0, 0, 800, 450);
		paint.fillStyle = '#fff';
		paint.font = '80px sans-serif';
		paint.fillText('Slide ' + n, 60, 240);
	}, 100);
	return canvas.captureStream(10);
})()`

// do runs a script in the page and waits for the promise it makes.
func do(t *testing.T, tab context.Context, script string) {
	t.Helper()
	script = "Promise.resolve(" + script + ").then(() => true)"
	if _, err := chromedp.Run(tab, chromedp.Evaluate[bool](script, chromedp.EvalAwaitPromise)); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

// picture keeps what a page looks like, desktop and phone, where RTCD_SCREENSHOTS names a folder.
func picture(t *testing.T, tab context.Context, name string) {
	t.Helper()
	folder := os.Getenv("RTCD_SCREENSHOTS")
	if folder == "" {
		return
	}
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"desktop", 1100, 900}, {"phone", 390, 844}} {
		if err := chromedp.Do(tab, chromedp.EmulateViewport(size.width, size.height)); err != nil {
			t.Fatal(err)
		}
		png, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+"-"+size.name+".png"), png, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// video returns a kind of video of a sender.
func (s stats) video(kind, sender string) video {
	for _, v := range s.Video {
		if v.Type == kind && v.Sender == sender {
			return v
		}
	}
	return video{}
}

// decoded returns the frames of a kind of video of a sender, or -1 while there is none that shows.
func (s stats) decoded(kind, sender string) int {
	if v := s.video(kind, sender); v.Width > 0 && v.Height > 0 && v.Codec != "" {
		return v.Decoded
	}
	return -1
}

// id returns the session of a participant.
func (s stats) id(name string) string {
	for _, p := range s.Participants {
		if p.Name == name {
			return p.ID
		}
	}
	return ""
}

// camera reports whether a participant's camera is said to be on.
func (s stats) camera(id string) bool {
	for _, p := range s.Participants {
		if p.ID == id {
			return p.Camera
		}
	}
	return false
}

// sees waits until pictures come, and then more of them.
func sees(t *testing.T, tab context.Context, what, kind, sender string) {
	t.Helper()
	n := until(t, tab, what, func(s stats) bool { return s.decoded(kind, sender) > 0 }).decoded(kind, sender)
	until(t, tab, what+", and goes on", func(s stats) bool { return s.decoded(kind, sender) > n+10 })
}

// tiles waits until the page shows as many pictures of others in a place.
func tiles(t *testing.T, tab context.Context, place string, want int) {
	t.Helper()
	counts(t, tab, place, `document.querySelectorAll('`+place+` .picture:not([data-mid=mine]) video').length`, want)
}

// The numbers under a picture that is received, and the lines of one that is sent.
const (
	received = `/^(VP8|VP9|H264|AV1) · [1-9]\d*×[1-9]\d* · \d+ fps( · layer [lmh/]+)? · [1-9]\d* kbit\/s · [\d.]+ % lost$/`
	sent     = `/^Sent as (VP8|VP9|H264|AV1)\n(.*\n)*l [1-9]\d*×[1-9]\d* · [1-9]\d* kbit\/s( · limited by \w+)?$/`
)

// captions waits until as many pictures have such numbers under them.
func captions(t *testing.T, tab context.Context, numbers string, want int) {
	t.Helper()
	counts(t, tab, "captions", `[...document.querySelectorAll('.numbers')].filter((e) =>
		`+numbers+`.test(e.textContent.replaceAll('\u00a0', ' '))).length`, want)
}

// counts waits until a count in the page is as wanted.
func counts(t *testing.T, tab context.Context, what, count string, want int) {
	t.Helper()
	var got int
	for end := time.Now().Add(patience); time.Now().Before(end); {
		var err error
		if got, err = chromedp.Run(tab, chromedp.Evaluate[int](count)); err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
		select {
		case <-tab.Done():
			t.Fatalf("%s: the browser is gone", what)
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("%s: %d, want %d", what, got, want)
}

// Bert sees Anna's camera, sees it again after she turned it off and on, and her screen for as long
// as she shares it; then he shares his.
func TestBrowsersSeeEachOther(t *testing.T) {
	path := chromium(t)
	d := startDemo(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	anna := open(ctx, t, path, d.link, "Anna", smallerCamera)
	bert := open(ctx, t, path, d.link, "Bert", smallerCamera)
	hears(t, anna, "Anna")
	s := hears(t, bert, "Bert")
	idAnna, idBert := s.id("Anna"), s.id("Bert")

	do(t, anna, `huddle.camera(true)`)
	sees(t, bert, "Bert sees Anna", "video", idAnna)
	tiles(t, bert, "#people", 1)

	do(t, anna, `huddle.camera(false)`)
	until(t, bert, "Bert is told that the camera is off", func(s stats) bool { return !s.camera(idAnna) })
	tiles(t, bert, "#people", 0)
	before := stopped(t, bert, idAnna)
	do(t, anna, `window.offers = 0, app.call.pc.addEventListener('signalingstatechange', () => { window.offers++; })`)
	do(t, anna, `huddle.camera(true)`)
	until(t, bert, "Bert sees Anna again", func(s stats) bool { return s.decoded("video", idAnna) > before+10 })
	tiles(t, bert, "#people", 1)
	if n, err := chromedp.Run(anna, chromedp.Evaluate[int](`window.offers`)); err != nil || n != 0 {
		t.Errorf("turning the camera on again negotiated: %d changes of state, %v", n, err)
	}

	// What the browser captures, then a stand-in. A second share is another section.
	for _, start := range []chromedp.Action[chromedp.Void]{
		chromedp.Click("#share"),
		chromedp.Evaluate[chromedp.Void](`void huddle.screen(true, ` + canvas + `)`),
	} {
		if err := chromedp.Do(anna, start); err != nil {
			t.Fatalf("share: %v", err)
		}
		sees(t, bert, "Bert sees Anna's screen", "screen", idAnna)
		tiles(t, bert, "#stage", 1)
		if s := look(t, bert); s.Sharer != idAnna {
			t.Errorf("Bert hears that %q shares, want Anna, %q", s.Sharer, idAnna)
		}
		if off, err := chromedp.Run(bert, chromedp.Evaluate[bool](`$('share').disabled && $('share').textContent.includes('Anna')`)); err != nil || !off {
			t.Errorf("Bert's button lets him share over Anna: %v", err)
		}
		captions(t, bert, received, 2)
		captions(t, anna, sent, 2)
		picture(t, bert, "receiver")
		picture(t, anna, "sharer")
		do(t, anna, `huddle.screen(false)`)
		until(t, bert, "the screen is gone", func(s stats) bool { return s.decoded("screen", idAnna) < 0 && s.Sharer == "" })
		tiles(t, bert, "#stage", 0)
	}

	// Anna's call breaks. She comes back with another session and the same camera.
	do(t, anna, `lost()`)
	s = until(t, bert, "Anna is back", func(s stats) bool {
		return s.id("Anna") != "" && s.id("Anna") != idAnna && len(s.Participants) == 2
	})
	idAnna = s.id("Anna")
	sees(t, bert, "Bert sees Anna who is back", "video", idAnna)
	tiles(t, bert, "#people", 1)
	hears(t, anna, "Anna")

	do(t, bert, `huddle.camera(true)`)
	do(t, bert, `huddle.screen(true, `+canvas+`)`)
	sees(t, anna, "Anna sees Bert", "video", idBert)
	sees(t, anna, "Anna sees Bert's screen", "screen", idBert)
	sees(t, bert, "Bert still sees Anna", "video", idAnna)
	hears(t, anna, "Anna")
	if err := chromedp.Do(bert, chromedp.Click("#leave")); err != nil {
		t.Fatal(err)
	}
	until(t, anna, "Bert is gone", func(s stats) bool { return len(s.Participants) == 1 && len(s.Video) == 0 && s.Sharer == "" })
}

// stopped waits until no pictures of a camera come any more and returns how many have.
func stopped(t *testing.T, tab context.Context, sender string) int {
	t.Helper()
	last := -2
	s := until(t, tab, "the camera stops", func(s stats) bool {
		n := s.decoded("video", sender)
		same := n == last
		last = n
		return same
	})
	return s.decoded("video", sender)
}
