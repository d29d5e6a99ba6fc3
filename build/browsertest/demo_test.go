// Package browsertest runs the demo as `make demo` does and looks at it with real browsers.
package browsertest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// chromium returns the path of a browser, or skips.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("NO CHROMIUM HERE: what a browser hears was NOT tested (.ci/run installs it)")
	return ""
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// mediaPort returns a port in the range that the configuration allows, free for TCP and UDP.
func mediaPort(t *testing.T) int {
	t.Helper()
	for port := 20000 + os.Getpid()%10000; port < 49000; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", fmt.Sprintf("0.0.0.0:%d", port))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return port
		}
	}
	t.Fatal("no free media port")
	return 0
}

// demo is the pair of processes of `make demo`.
type demo struct {
	link   string // of the page
	stderr *strings.Builder
}

// binaries is where both binaries are, built once as the Makefile does.
var binaries = sync.OnceValues(func() (folder string, err error) {
	if folder, err = os.MkdirTemp("", "browsertest-"); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", folder+string(filepath.Separator), "./cmd/rtcd", "./examples/huddle")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return folder, fmt.Errorf("build: %w\n%s", err, out)
	}
	return folder, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if folder, _ := binaries(); folder != "" {
		_ = os.RemoveAll(folder)
	}
	os.Exit(code)
}

// startDemo starts both binaries on ports of their own.
func startDemo(t *testing.T, environ ...string) *demo {
	t.Helper()
	return startDemoAt(t, "127.0.0.1", environ...)
}

// startDemoAt serves the page on another address.
func startDemoAt(t *testing.T, host string, environ ...string) *demo {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	media := mediaPort(t)
	d := &demo{stderr: new(strings.Builder)}
	cmd := exec.Command(filepath.Join(dir, "huddle"), "-start", filepath.Join(dir, "rtcd"),
		"-listen", fmt.Sprintf("%s:%d", host, freePort(t)))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(),
		fmt.Sprintf("RTCD_API_HTTP_LISTENADDRESS=127.0.0.1:%d", freePort(t)),
		fmt.Sprintf("RTCD_API_ADMIN_LISTENADDRESS=127.0.0.1:%d", freePort(t)),
		fmt.Sprintf("RTCD_RTC_ICEPORTUDP=%d", media),
		fmt.Sprintf("RTCD_RTC_ICEPORTTCP=%d", media),
	)
	cmd.Env = append(cmd.Env, environ...)
	cmd.Stderr = d.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if i := strings.Index(lines.Text(), "http://"); i >= 0 && strings.Contains(lines.Text(), "room=") {
				select {
				case found <- strings.TrimSpace(lines.Text()[i:]):
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		// Ctrl-C, as in a terminal.
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Errorf("interrupt the demo: %v", err)
		}
		<-printed
		if err := cmd.Wait(); err != nil {
			t.Errorf("the demo ended with %v\n%s", err, d.stderr)
		}
	})
	select {
	case d.link = <-found:
	case <-printed:
		t.Fatalf("the demo ended at once\n%s", d.stderr)
	case <-time.After(30 * time.Second):
		t.Fatalf("the demo printed no link\n%s", d.stderr)
	}
	return d
}

// tcpOnly makes a page ignore what rtcd says of UDP.
const tcpOnly = `
	const udp = /^(a=)?candidate:\S+ \d+ udp /i;
	const describe = RTCPeerConnection.prototype.setRemoteDescription;
	RTCPeerConnection.prototype.setRemoteDescription = function (d) {
		const sdp = d.sdp.split('\r\n').filter((line) => !udp.test(line)).join('\r\n');
		return describe.call(this, { type: d.type, sdp });
	};
	const add = RTCPeerConnection.prototype.addIceCandidate;
	RTCPeerConnection.prototype.addIceCandidate = function (c) {
		return c && udp.test(c.candidate) ? Promise.resolve() : add.call(this, c);
	};`

// open opens the page in a browser of its own, runs a script there, and joins under the name given.
func open(ctx context.Context, t *testing.T, path, link, name, script string) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("use-fake-ui-for-media-stream", true),
		chromedp.Flag("use-fake-device-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-quic", true),
	)
	alloc, cancelAlloc := chromedp.NewExecAllocator(ctx, opts...)
	tab, cancelTab := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(tab); err != nil {
			t.Logf("close the browser: %v", err)
		}
		cancelTab()
		cancelAlloc()
	})
	if _, err := chromedp.Run(tab, chromedp.Navigate(link+"&name="+name)); err != nil {
		t.Fatalf("open the page: %v", err)
	}
	if _, err := chromedp.Run(tab, chromedp.Evaluate[chromedp.Void](script+"\nvoid join();")); err != nil {
		t.Fatalf("join: %v", err)
	}
	return tab
}

type stats struct {
	State   string   `json:"state"`
	RTT     *float64 `json:"rtt"`
	Inbound []struct {
		Packets int     `json:"packetsReceived"`
		Energy  float64 `json:"totalAudioEnergy"`
		Samples float64 `json:"totalSamplesReceived"`
	} `json:"inbound"`
	Video []video `json:"video"`
	Sent  []struct {
		Type   string `json:"type"`
		RID    string `json:"rid"`
		Height int    `json:"height"`
		Codec  string `json:"codec"`
		Bytes  int    `json:"bytes"`
	} `json:"sent"`
	Sharer       string `json:"sharer"`
	Participants []struct {
		ID       string `json:"id"`
		Camera   bool   `json:"camera"`
		Name     string `json:"name"`
		Speaking bool   `json:"speaking"`
		Muted    bool   `json:"muted"`
	} `json:"participants"`
}

// A video is what a page knows of one that it receives.
type video struct {
	MID     string `json:"mid"`
	Type    string `json:"type"`
	Sender  string `json:"sender"`
	Decoded int    `json:"framesDecoded"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Codec   string `json:"codec"`
	Layer   string `json:"layer"`
}

func (s stats) packets() (n int, energy float64) {
	for _, in := range s.Inbound {
		n += in.Packets
		energy += in.Energy
	}
	return n, energy
}

func look(t *testing.T, tab context.Context) stats {
	t.Helper()
	s, err := chromedp.Run(tab, chromedp.Evaluate[stats](`window.huddle.stats()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("stats: %v", err)
	}
	return s
}

// patience is how long anything may take, on a machine that does much else.
const patience = time.Minute

// until asks the page until ok holds; getStats has no event to wait for.
func until(t *testing.T, tab context.Context, what string, ok func(stats) bool) stats {
	t.Helper()
	var s stats
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if s = look(t, tab); ok(s) {
			return s
		}
		select {
		case <-tab.Done():
			t.Fatalf("%s: the browser is gone", what)
		case <-time.After(200 * time.Millisecond):
		}
	}
	t.Fatalf("%s: not within %v; last %+v", what, patience, s)
	return s
}

// Two stock browsers hear each other through ICE-lite; one mutes and the other's stats stop.
func TestTwoBrowsersHearEachOther(t *testing.T) {
	path := chromium(t)
	d := startDemo(t)
	// Not of t.Context(), which ends before the browsers are closed.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	anna := open(ctx, t, path, d.link, "Anna", "")
	bert := open(ctx, t, path, d.link, "Bert", "")
	for name, tab := range map[string]context.Context{"Anna": anna, "Bert": bert} {
		first := hears(t, tab, name)
		n, energy := first.packets()
		next := until(t, tab, name+" goes on hearing", func(s stats) bool {
			m, e := s.packets()
			return m > n+50 && e > energy
		})
		if next.RTT == nil || *next.RTT <= 0 || *next.RTT > 1000 {
			t.Errorf("%s: round-trip time %v", name, next.RTT)
		}
	}
	until(t, bert, "Bert sees Anna speak", func(s stats) bool {
		for _, p := range s.Participants {
			if p.Name == "Anna" && p.Speaking {
				return true
			}
		}
		return false
	})

	if _, err := chromedp.Run(anna, chromedp.Evaluate[chromedp.Void](`window.huddle.mute()`)); err != nil {
		t.Fatalf("mute: %v", err)
	}
	until(t, bert, "Bert sees Anna muted", func(s stats) bool {
		for _, p := range s.Participants {
			if p.Name == "Anna" && p.Muted {
				return true
			}
		}
		return false
	})
	var before int
	until(t, bert, "packets stop coming", func(s stats) bool {
		n, _ := s.packets()
		same := n == before
		before = n
		return same
	})
	// Half a second at 50 packets a second would have brought 25 more.
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
	}
	if n, _ := look(t, bert).packets(); n != before {
		t.Errorf("%d packets came from a muted microphone", n-before)
	}
	n, _ := look(t, anna).packets()
	until(t, anna, "the muted one still hears", func(s stats) bool {
		m, _ := s.packets()
		return m > n+20
	})
	if _, err := chromedp.Run(anna, chromedp.Evaluate[chromedp.Void](`window.huddle.unmute()`)); err != nil {
		t.Fatalf("unmute: %v", err)
	}
	until(t, bert, "packets come again", func(s stats) bool {
		m, _ := s.packets()
		return m > before+50
	})
	if shot := os.Getenv("RTCD_SCREENSHOT"); shot != "" {
		png, err := chromedp.Run(bert, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(shot, png, 0o600)
		}
		if err != nil {
			t.Errorf("take a picture: %v", err)
		}
	}
}

// hears waits until sound of another one comes.
func hears(t *testing.T, tab context.Context, name string) stats {
	t.Helper()
	return until(t, tab, name+" hears the other", func(s stats) bool {
		n, energy := s.packets()
		return s.State == "connected" && n > 50 && energy > 0
	})
}

// The other ways that media can take: ICE-TCP, and a server that is a full ICE agent.
func TestBrowserTransports(t *testing.T) {
	path := chromium(t)
	for _, c := range []struct {
		name, environ, script, protocol string
	}{
		{"ICE-TCP", "RTCD_RTC_ICELITE=on", tcpOnly, "tcp"},
		{"full agent", "RTCD_RTC_ICELITE=off", "", "udp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDemo(t, c.environ)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			t.Cleanup(cancel)
			anna := open(ctx, t, path, d.link, "Anna", c.script)
			bert := open(ctx, t, path, d.link, "Bert", c.script)
			hears(t, anna, "Anna")
			hears(t, bert, "Bert")
			const selected = `app.call.pc.getStats().then((all) => {
				const transport = [...all.values()].find((s) => s.type === 'transport');
				const pair = all.get(transport.selectedCandidatePairId);
				return all.get(pair.remoteCandidateId).protocol + ' ' + transport.srtpCipher;
			})`
			got, err := chromedp.Run(anna, chromedp.Evaluate[string](selected, chromedp.EvalAwaitPromise))
			if err != nil {
				t.Fatalf("selected candidate pair: %v", err)
			}
			if want := c.protocol + " SRTP_AEAD_AES_128_GCM"; got != want {
				t.Errorf("media goes over %q, want %q", got, want)
			}
		})
	}
}
