package browsertest

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// cipher stands for end-to-end encryption: it makes all of a VP8 frame unreadable but the header
// that RFC 6386, section 9.1, leaves uncompressed, and readable again.
const cipher = `
	onrtctransform = ({ transformer }) => {
		const transform = (frame, controller) => {
			const bytes = new Uint8Array(frame.data);
			for (let i = frame.type === 'key' ? 10 : 3; i < bytes.length; i++) bytes[i] ^= 0x5a;
			controller.enqueue(frame);
			postMessage(transformer.options);
		};
		transformer.readable.pipeThrough(new TransformStream({ transform })).pipeTo(transformer.writable);
	};`

// encrypt has all videos of a page pass through the cipher, and counts their frames.
const encrypt = `
	const worker = new Worker('cipher.js');
	window.frames = { sent: 0, received: 0 };
	worker.onmessage = (e) => { window.frames[e.data]++; };
	window.RTCPeerConnection = class extends RTCPeerConnection {
		constructor(configuration) {
			super(configuration);
			this.addEventListener('track', ({ track, receiver }) => {
				if (track.kind === 'video') receiver.transform = new RTCRtpScriptTransform(worker, 'received');
			});
		}
		addTransceiver(track, init) {
			const transceiver = super.addTransceiver(track, init);
			transceiver.sender.transform = new RTCRtpScriptTransform(worker, 'sent');
			return transceiver;
		}
	};`

// withFile serves the demo's page and a script of ours beside it, from where the page may load it.
func withFile(t *testing.T, link, name, script string) string {
	t.Helper()
	page, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	demo := &url.URL{Scheme: page.Scheme, Host: page.Host}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(demo)
			r.Out.Host = r.In.Host // the demo compares it with the origin
		},
		ErrorLog: log.New(io.Discard, "", 0), // of browsers that go
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/"+name, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write([]byte(script))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	page.Host = strings.TrimPrefix(s.URL, "http://")
	return page.String()
}

// What is encrypted from end to end is forwarded as it is, in layers like any other video.
func TestEncryptedVideo(t *testing.T) {
	path := chromium(t)
	d := startDemo(t)
	link := withFile(t, d.link, "cipher.js", cipher) + "&codec=VP8"
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	anna := open(ctx, t, path, link, "Anna", smallerCamera+encrypt)
	explain(t, anna)
	bert := open(ctx, t, path, link, "Bert", encrypt)
	hears(t, anna, "Anna")
	id := hears(t, bert, "Bert").id("Anna")
	do(t, anna, `void huddle.camera(true)`)
	sees(t, bert, "Bert sees Anna", "video", id)
	layers(t, anna, "VP8", map[string]int{"video l": cameraHeight / 4, "video m": cameraHeight / 2, "video h": cameraHeight})
	until(t, bert, "Bert sees all of Anna", func(s stats) bool { return s.video("video", id).Height == cameraHeight })
	sees(t, bert, "Bert goes on seeing Anna", "video", id)
	for name, tab := range map[string]context.Context{"sent": anna, "received": bert} {
		if n, err := chromedp.Run(tab, chromedp.Evaluate[int](`window.frames.`+name)); err != nil || n < 20 {
			t.Errorf("%d frames that were %s passed the cipher: %v", n, name, err)
		}
	}

	// Without the key there is nothing to see.
	eve := open(ctx, t, path, link, "Eve", "")
	id = hears(t, eve, "Eve").id("Anna")
	const frames = `app.call.pc.getStats().then((all) => [...all.values()].reduce((n, s) =>
		n + (s.type === 'inbound-rtp' && s.kind === 'video' ? s.framesReceived || 0 : 0), 0))`
	until(t, eve, "Eve gets frames", func(stats) bool {
		n, err := chromedp.Run(eve, chromedp.Evaluate[int](frames, chromedp.EvalAwaitPromise))
		return err == nil && n > 20
	})
	if n := look(t, eve).video("video", id).Decoded; n > 10 {
		t.Errorf("Eve decoded %d frames", n)
	}
}
