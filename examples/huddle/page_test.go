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
	if testing.Short() {
		t.Skip("short: no browser")
	}
	var binary string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			binary = path
			break
		}
	}
	if binary == "" {
		t.Skip("NO CHROMIUM: the page is not tested")
	}
	r := newRig(t, true)
	r.enter("lobby", "Grace%20Hopper")
	r.enter("lobby", "Alan")

	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.Flag("window-size", "1100,720"),
		chromedp.Flag("use-fake-ui-for-media-stream", true), chromedp.Flag("use-fake-device-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
	)
	alloc, cancelAlloc := chromedp.NewExecAllocator(t.Context(), opts...)
	defer cancelAlloc()
	ctx, cancel := chromedp.NewContext(alloc)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil { // starts the browser
		t.Fatal(err)
	}
	ctx, cancelTimeout := context.WithTimeout(ctx, time.Minute)
	defer cancelTimeout()
	p := &pageTest{t: t, ctx: ctx}

	p.run(chromedp.Navigate(r.web.URL + "/?room=lobby&name=Ada"))
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

	// rtcd ends the session: the page comes back by itself, with a new one.
	r.rtcd.send(wire.AppendClose(nil, id))
	for !strings.HasPrefix(within(t, r.rtcd.got, "second join"), "join lobby ") {
	}
	p.until(`s.state === 'connected' && s.inbound.some(i => i.packetsReceived > 5)`)
	p.run(chromedp.Click("#leave"))
	for !strings.HasPrefix(within(t, r.rtcd.got, "leave"), "leave ") {
	}
	p.until(`s.state === 'idle'`)
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
