package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rtcd/service/api/wire"
)

// TestPage runs the page in a real browser with a fake microphone, against a rtcd that plays the
// voice back. With HUDDLE_SCREENSHOT set to a folder, it leaves pictures there.
func TestPage(t *testing.T) {
	needBrowser(t)
	r := newRig(t, true)
	r.enter("lobby", "Grace%20Hopper")
	r.enter("lobby", "Alan")

	p := openPage(t, r.web.URL+"/?room=lobby&name=Ada")
	p.picture("join")
	p.run(chromedp.Click("#join button"))
	p.until(`s.state === 'connected' && s.rtt > 0`)
	var id string
	for unlocked := false; !unlocked; {
		got := within(t, r.rtcd.got, "unlock")
		if session, ok := strings.CutPrefix(got, "unlock "); ok {
			id, unlocked = session, true
		} else if strings.HasPrefix(got, "description:") || strings.HasPrefix(got, "odd") || strings.HasPrefix(got, "offer:") {
			t.Fatal(got)
		}
	}
	p.until(`s.inbound.some(i => i.packetsReceived > 20 && i.totalAudioEnergy > 0 && i.sender === 'other')`)
	p.until(`s.participants.length === 3 && s.participants.some(q => q.name === 'Ada' && !q.muted)`)
	r.rtcd.send(wire.AppendVAD(nil, wire.Signal{SessionID: id, Type: wire.SignalVoiceOn}))
	p.until(`s.participants.some(q => q.name === 'Ada' && q.speaking)`)
	p.picture("desktop")
	p.run(chromedp.EmulateViewport(390, 780))
	p.picture("phone")

	p.run(chromedp.Click("#mute"))
	for within(t, r.rtcd.got, "mute") != "rtc "+id+" 3 " {
	}
	p.until(`s.participants.some(q => q.name === 'Ada' && q.muted)`)
	p.run(chromedp.Evaluate[chromedp.Void](`window.huddle.unmute()`))
	for within(t, r.rtcd.got, "unmute") != "rtc "+id+" 4 " {
	}

	// The WebSocket breaks: the call goes on, and so does the session, with what was said meanwhile.
	r.hub.mu.Lock()
	r.hub.grace = time.Hour
	cut := r.hub.all[id].link.cut
	r.hub.mu.Unlock()
	p.run(chromedp.Evaluate[chromedp.Void](`window.before = app.call; void 0`))
	cut()
	p.run(chromedp.Evaluate[chromedp.Void](`window.huddle.mute()`))
	for muted := false; !muted; {
		switch got := within(t, r.rtcd.got, "mute after a loss"); {
		case strings.HasPrefix(got, "join"), strings.HasPrefix(got, "leave"):
			t.Fatalf("the session did not go on: %s", got)
		case got == "rtc "+id+" 3 ":
			muted = true
		}
	}
	p.until(`s.state === 'connected' && app.call === window.before && s.participants.length === 3`)
	p.run(chromedp.Evaluate[chromedp.Void](`window.huddle.unmute()`))

	// rtcd ends the session: the page comes back by itself, with a new one.
	r.rtcd.send(wire.AppendClose(nil, id))
	for !strings.HasPrefix(within(t, r.rtcd.got, "second join"), "join lobby ") {
	}
	p.until(`s.state === 'connected' && s.inbound.some(i => i.packetsReceived > 5)`)
	p.run(chromedp.Click("#leave"))
	for !strings.HasPrefix(within(t, r.rtcd.got, "leave"), "leave ") {
	}
	p.until(`s.state === 'idle'`)

	// A page that goes away leaves at once too, not after the hour.
	p.run(chromedp.Navigate(r.web.URL + "/?room=lobby&name=Ada&autojoin=1"))
	p.until(`s.state === 'connected'`)
	p.run(chromedp.Navigate("about:blank"))
	for !strings.HasPrefix(within(t, r.rtcd.got, "leave of a page that is gone"), "leave ") {
	}
}

// TestPagesTalk is the demo as people see it: this huddle and the rtcd binary that HUDDLE_RTCD
// names, two browsers that hear each other, one that mutes, Ctrl-C.
func TestPagesTalk(t *testing.T) {
	binary := os.Getenv("HUDDLE_RTCD")
	if binary == "" {
		t.Skip("HUDDLE_RTCD does not name an rtcd binary")
	}
	needBrowser(t)
	args := demoEnv(t, "")
	args[1] = binary
	d := startDemo(t, args)
	ann := openPage(t, "http://"+d.host+"/?room=lobby&name=Ann&autojoin=1")
	bob := openPage(t, "http://"+d.host+"/?room=lobby&name=Bob&autojoin=1")
	const heard = `s.state === 'connected' && s.rtt > 0 && s.inbound.some(i => i.packetsReceived > 50 && i.totalAudioEnergy > 0)`
	ann.until(heard)
	bob.until(heard)
	bob.until(`s.participants.some(q => q.name === 'Ann' && q.speaking)`)
	ann.picture("talk")
	ann.run(chromedp.Click("#mute"))
	bob.until(`s.participants.some(q => q.name === 'Ann' && q.muted)`)
	bob.until(`(() => { // a second without a packet
		const n = s.inbound.reduce((sum, i) => sum + i.packetsReceived, 0);
		if (window.count !== n) { window.count = n; window.since = Date.now(); }
		return Date.now() - window.since > 1000;
	})()`)
	ann.run(chromedp.Evaluate[chromedp.Void](`window.huddle.unmute()`))
	bob.until(`s.inbound.reduce((sum, i) => sum + i.packetsReceived, 0) > window.count + 20`)
	ann.run(chromedp.Click("#leave"))
	bob.until(`s.participants.length === 1`)
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

// chromium returns the path of a browser, or nothing.
func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func needBrowser(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: no browser")
	}
	if chromium() == "" {
		t.Skip("NO CHROMIUM: the page is not tested")
	}
}

// openPage opens url in a browser of its own, with a fake microphone that beeps.
func openPage(t *testing.T, url string) *pageTest {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium()), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.Flag("window-size", "1100,720"),
		chromedp.Flag("use-fake-ui-for-media-stream", true), chromedp.Flag("use-fake-device-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
	)
	alloc, cancelAlloc := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancelAlloc)
	browser, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil { // starts it
		t.Fatal(err)
	}
	ctx, cancelTimeout := context.WithTimeout(browser, 2*time.Minute)
	t.Cleanup(cancelTimeout)
	p := &pageTest{t: t, ctx: ctx}
	p.run(chromedp.Navigate(url))
	return p
}

type pageTest struct {
	t   *testing.T
	ctx context.Context
}

func (p *pageTest) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// until waits, inside the page, for a condition on the test hook's stats.
func (p *pageTest) until(condition string) {
	p.t.Helper()
	script := `(async () => {
		const end = Date.now() + 15000;
		for (;;) {
			const s = await window.huddle.stats();
			if (` + condition + `) return '';
			if (Date.now() > end) return JSON.stringify(s);
			await new Promise(r => setTimeout(r, 20));
		}
	})()`
	result, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil || result != "" {
		p.t.Fatalf("%s: %v; the page says %s", condition, err, result)
	}
}

func (p *pageTest) picture(name string) {
	p.t.Helper()
	folder := os.Getenv("HUDDLE_SCREENSHOT")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600); err != nil {
		p.t.Fatal(err)
	}
}
