package browsertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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

const operatorKey = "p9Xv2LqT7mZc4RwKb8YhN3sDf6GjE1aU5oViQ0x"

// A probed is a server that people probe.
type probed struct {
	rtcd       string
	dir        string
	env        []string
	api, media int
	log        *lines
}

// lines is a log that grows.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startProbed starts the server that a user's network leads to, on all addresses.
func startProbed(t *testing.T) *probed {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	p := &probed{rtcd: filepath.Join(dir, "rtcd"), dir: t.TempDir(), api: freePort(t), media: mediaPort(t), log: &lines{}}
	p.env = append(os.Environ(),
		fmt.Sprintf("RTCD_API_HTTP_LISTENADDRESS=:%d", p.api),
		fmt.Sprintf("RTCD_API_ADMIN_LISTENADDRESS=127.0.0.1:%d", freePort(t)),
		"RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY="+operatorKey,
		fmt.Sprintf("RTCD_RTC_ICEPORTUDP=%d", p.media), fmt.Sprintf("RTCD_RTC_ICEPORTTCP=%d", p.media),
		"RTCD_LOGGER_ENABLEFILE=false",
	)
	cmd := exec.Command(p.rtcd)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v\n%s", err, p.log)
		}
	})
	for end := time.Now().Add(30 * time.Second); ; {
		if resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", p.api)); err == nil {
			_ = resp.Body.Close()
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("the server does not answer\n%s", p.log)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// link asks for one as an operator does, and returns it for who reaches the server at an address.
func (p *probed) link(t *testing.T, address string) string {
	t.Helper()
	cmd := exec.Command(p.rtcd, "doctor", "-probe", "-json")
	cmd.Dir, cmd.Env = p.dir, p.env
	out, err := cmd.Output()
	var answer struct{ Link string }
	if err != nil || json.Unmarshal(out, &answer) != nil {
		t.Fatalf("rtcd doctor -probe: %v %s", err, out)
	}
	origin := fmt.Sprintf("http://127.0.0.1:%d/", p.api)
	if !strings.HasPrefix(answer.Link, origin+"probe#rtcdpt_") {
		t.Fatalf("link %q", answer.Link)
	}
	return strings.Replace(answer.Link, "127.0.0.1", address, 1)
}

// told is what the page shows.
type told struct {
	Done, Verdict, Ask, Sent string
	UDP, TCP                 string // states
	UDPMore, TCPMore         string
	Hash                     string // that is left in the address
}

const readPage = `(() => { const $ = id => document.getElementById(id); return JSON.stringify({
	done: document.documentElement.dataset.done || "", verdict: $("verdict").textContent, ask: $("ask").textContent, sent: $("sent").textContent,
	udp: $("udp").dataset.state || "", tcp: $("tcp").dataset.state || "", udpMore: $("udp-more").textContent, tcpMore: $("tcp-more").textContent,
	hash: location.hash }) })()`

// probe opens a link in a browser of its own and returns what it shows in the end.
func probe(t *testing.T, path, link string) told {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	alloc, cancelAlloc := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-quic", true),
	)...)
	defer cancelAlloc()
	tab, cancelTab := chromedp.NewContext(alloc)
	defer func() {
		if err := chromedp.Cancel(tab); err != nil {
			t.Logf("close the browser: %v", err)
		}
		cancelTab()
	}()
	if _, err := chromedp.Run(tab, chromedp.Navigate(link)); err != nil {
		t.Fatalf("open the page: %v", err)
	}
	for {
		text, err := chromedp.Run(tab, chromedp.Evaluate[string](readPage))
		if err != nil {
			t.Fatalf("read the page: %v", err)
		}
		var s told
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		if s.Done != "" {
			picture(t, tab, "probe-"+strings.ReplaceAll(t.Name(), "/", "-"))
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the page has not come to an end: %+v", s)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// last returns the last line of the log about a probe, once there are n.
func (p *probed) last(t *testing.T, n int) string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		var found []string
		for line := range strings.Lines(p.log.String()) {
			if strings.Contains(line, "probeID") {
				found = append(found, line)
			}
		}
		if len(found) >= n {
			if len(found) > n {
				t.Errorf("%d lines for %d probes:\n%s", len(found), n, strings.Join(found, ""))
			}
			return found[len(found)-1]
		}
		if time.Now().After(end) {
			t.Fatalf("%d lines of probes:\n%s", len(found), p.log)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func expect(t *testing.T, s told, udp, tcp string, texts ...string) {
	t.Helper()
	if s.UDP != udp || s.TCP != tcp || s.Hash != "" || !strings.Contains(s.Sent, "was sent") {
		t.Errorf("want UDP %s, TCP %s: %+v", udp, tcp, s)
	}
	for _, text := range texts {
		if all := strings.Join([]string{s.Verdict, s.Ask, s.UDPMore, s.TCPMore}, "\n"); !strings.Contains(all, text) {
			t.Errorf("the page does not say %q: %+v", text, s)
		}
	}
}

// TestProbePage: on this machine a user's browser finds that UDP and TCP work; a link that was used is said to be one.
func TestProbePage(t *testing.T) {
	path := chromium(t)
	p := startProbed(t)
	link := p.link(t, "127.0.0.1")
	expect(t, probe(t, path, link), "works", "works", "UDP works, and so does TCP", "connected in", "round trip", "loss 0 %", "the server sees you as", "IPv4: works")
	if l := p.last(t, 1); !strings.Contains(l, "udp=true") || !strings.Contains(l, "tcp=true") || !strings.Contains(l, "udpSeen=") {
		t.Errorf("line %s", l)
	}
	if s := probe(t, path, link); !strings.Contains(s.Verdict, "has been used") || s.Sent != "" {
		t.Errorf("a link that was used: %+v", s)
	}
	if strings.Contains(p.log.String(), strings.SplitN(link, "#", 2)[1]) {
		t.Error("the link is in the log")
	}
}

// TestProbePageBehindFirewall: where UDP is dropped the page says so, and that TCP works, and which port to ask for;
// where both are, it says that, too.
func TestProbePageBehindFirewall(t *testing.T) {
	path := chromium(t)
	l := newLink(t)
	inside := l.inside(t, path)
	p := startProbed(t)
	expect(t, probe(t, inside, p.link(t, l.address)), "works", "works", "UDP works")
	drop := func(protocol string) {
		t.Helper()
		if err := try("ip", "-n", l.namespace, "rule", "add", "ipproto", protocol, "dport", fmt.Sprint(p.media), "blackhole"); err != nil {
			t.Skipf("NO RULES BY PORT HERE: %v; what a user behind a firewall sees was NOT tested", err)
		}
	}
	drop("udp")
	port := fmt.Sprintf("port %d/", p.media)
	expect(t, probe(t, inside, p.link(t, l.address)), "blocked", "works", "UDP is blocked. TCP works", "to open "+port+"udp to ", l.address)
	if l := p.last(t, 2); !strings.Contains(l, "udp=false") || !strings.Contains(l, "tcp=true") {
		t.Errorf("line %s", l)
	}
	drop("tcp")
	expect(t, probe(t, inside, p.link(t, l.address)), "blocked", "blocked", "Neither UDP nor TCP works", port+"udp to ", "or at least "+port+"tcp to ")
	if l := p.last(t, 3); !strings.Contains(l, "udp=false") || !strings.Contains(l, "tcp=false") || strings.Contains(l, "Seen") {
		t.Errorf("line %s", l)
	}
}
