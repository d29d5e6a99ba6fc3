package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/service/rtc/rtctest"
)

// drainCycles is how many servers TestSignalCycles drains; without it as many as fit in half a minute.
var drainCycles = flag.Int("drain.cycles", 0, "`number` of servers that TestSignalCycles drains; 0: as many as fit in 30 s")

// load asks a server for its load, as those do who place calls.
func (c *child) load() (float64, error) {
	resp, err := http.Get(c.url() + "/system")
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Load *float64 `json:"cpu_load"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&answer); err != nil || answer.Load == nil {
		return 0, fmt.Errorf("no load in the answer: %w", err)
	}
	return *answer.Load, nil
}

// A host is a server with the connection of a backend.
type host struct {
	*child
	r *rtctest.Remote
}

// place returns the host a new call goes to: of those that answer, the one with the smallest load.
func place(t *testing.T, hosts []host) (best host) {
	t.Helper()
	least := -1.0
	for _, h := range hosts {
		load, err := h.load()
		if err == nil && (least < 0 || load < least) {
			best, least = h, load
		}
	}
	if least < 0 {
		t.Fatal("no host answers")
	}
	return best
}

// busy keeps all processors busy until the test ends or stop is called.
func busy(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	for range runtime.NumCPU() {
		loops.Go(func() {
			for ctx.Err() == nil {
				for n := 0; n < 1<<20; n++ {
					_ = n
				}
			}
		})
	}
	return func() { cancel(); loops.Wait() }
}

// TestPlacementAvoidsADrainingServer shows D1 and D3, protocol section 20.1: of two servers one drains. 200 new calls,
// placed by load, all go to the other, half of them while its machine is busy to the full; the calls of the draining
// one go on, and take new participants, until the deadline; it ends within 5 s of that, and told each session.
func TestPlacementAvoidsADrainingServer(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	var hosts []host
	for range 2 {
		c := start(t, t.TempDir(), "RTCD_RTC_LIMITS_JOINSPERSECOND=10000", "RTCD_SHUTDOWN_DRAINDEADLINE=24h",
			"RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY="+drainKey)
		hosts = append(hosts, host{c, c.connect(t, "plugin")})
	}
	leaving, staying := hosts[0], hosts[1]
	all := call(ctx, t, leaving.r)
	stopTalk := rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 10)
	if st := leaving.askDrain(t, http.MethodPost, `{"deadline":"24h"}`); !st.Draining || st.Sessions != 2 || !st.Exit {
		t.Fatalf("drain: %+v", st)
	}

	var stopBusy func()
	const calls = 200
	for i := range calls {
		if i == calls/2 {
			stopBusy = busy(t)
			defer stopBusy()
			for {
				load, err := staying.load()
				if err == nil && load >= 10 { // next to no idle time left
					break
				}
				select {
				case <-ctx.Done():
					t.Fatalf("the machine does not get busy: %v %v", load, err)
				case <-time.After(200 * time.Millisecond):
				}
			}
		}
		to := place(t, hosts)
		if to.child != staying.child {
			t.Fatalf("call %d is placed on the draining server", i)
		}
		id := fmt.Sprintf("new%d", i)
		if err := to.r.Conn.Join(client.Join{CallID: id, UserID: "u", SessionID: id}); err != nil {
			t.Fatal(err)
		}
		to.awaitCall(ctx, t, id)
	}
	stopBusy()
	// What runs goes on, and takes who comes.
	late := leaving.r.Join(t, "call", "s3", rtctest.EndpointConfig{})
	if err := late.Connect(ctx); err != nil {
		t.Fatalf("join to the running call: %v", err)
	}
	more(ctx, t, late, "s1", 20)
	more(ctx, t, all["s1"], "s2", 20)

	// A request that never ends, and an endpoint that reads nothing more, do not keep it from ending.
	slow, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", leaving.ports.api))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := io.WriteString(slow, "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	stopTalk()
	const deadline = time.Second
	begin := time.Now()
	if st := leaving.askDrain(t, http.MethodPost, `{"deadline":1}`); st.Deadline == nil || st.Sessions != 3 {
		t.Fatalf("shorter deadline: %+v", st)
	}
	for _, session := range []string{"s1", "s2", "s3"} {
		if err := leaving.r.AwaitClosed(ctx, session); err != nil {
			t.Errorf("%s was not told: %v", session, err)
		}
	}
	if cut := time.Since(begin); cut < deadline {
		t.Errorf("sessions were cut after %v, before the deadline", cut)
	}
	if status := leaving.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, leaving.out)
	}
	late5 := time.Since(begin) - deadline
	if late5 > 5*time.Second {
		t.Errorf("ended %v after the deadline", late5)
	}
	t.Logf("%d calls placed on the other server, %d on the draining one; ended %v after the deadline", calls, 0, late5.Round(time.Millisecond))
}

// awaitCall waits until a call of the backend is there.
func (c *child) awaitCall(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url()+"/calls/"+id+"/sessions", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("plugin", key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("call %s did not come about: %v", id, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
}

const drainKey = "the admin key of the drain tests, long enough"

func (c *child) askDrain(t *testing.T, method, body string) (st drainState) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d/admin/drain", c.ports.admin), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("", drainKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s /admin/drain: %d %s %v", method, resp.StatusCode, text, err)
	}
	return st
}

// TestSignalCycles shows P13: again and again a server with a call gets SIGTERM. It refuses new calls and cuts none
// before the deadline; it ends within 5 s after it, or at once at a second signal, telling its sessions either way.
func TestSignalCycles(t *testing.T) {
	ctx := within(t, 10*time.Minute)
	begin := time.Now()
	var worstEnd, worstHalt time.Duration
	n := 0
	for ; n < *drainCycles || *drainCycles == 0 && time.Since(begin) < 30*time.Second; n++ {
		c := start(t, t.TempDir(), "RTCD_SHUTDOWN_DRAINDEADLINE=1500ms")
		r := c.connect(t, "plugin")
		for _, s := range []string{"s1", "s2"} {
			if err := r.Conn.Join(client.Join{CallID: "call", UserID: s, SessionID: s}); err != nil {
				t.Fatal(err)
			}
		}
		err := errors.Join(r.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s3"}), r.Conn.Leave("s3"))
		if err == nil {
			err = r.AwaitClosed(ctx, "s3") // so the two are in
		}
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		c.signal(t, syscall.SIGTERM)
		c.out.await(t, "draining")
		if err := r.Conn.Join(client.Join{CallID: "new", UserID: "u", SessionID: "refused"}); err != nil {
			t.Fatal(err)
		}
		if err := r.AwaitClosed(ctx, "refused"); err != nil {
			t.Fatalf("cycle %d: new call: %v\n%s", n, err, c.out)
		}
		second := n%2 == 1
		from := at.Add(1500 * time.Millisecond)
		if second {
			from = time.Now()
			c.signal(t, syscall.SIGTERM)
		}
		for _, s := range []string{"s1", "s2"} {
			if err := r.AwaitClosed(ctx, s); err != nil {
				t.Fatalf("cycle %d: %s was not told: %v\n%s", n, s, err, c.out)
			}
		}
		if cut := time.Since(at); !second && cut < 1500*time.Millisecond {
			t.Errorf("cycle %d: cut after %v, before the deadline", n, cut)
		}
		status := c.exit(t, 10*time.Second)
		if late := time.Since(from); second {
			worstHalt = max(worstHalt, late)
			if status != statusFault || late > 2*time.Second {
				t.Errorf("cycle %d: second signal: status %d after %v\n%s", n, status, late, c.out)
			}
		} else {
			worstEnd = max(worstEnd, late)
			if status != 0 || late > 5*time.Second {
				t.Errorf("cycle %d: status %d, %v after the deadline\n%s", n, status, late, c.out)
			}
		}
	}
	t.Logf("%d cycles; at worst ended %v after the deadline, %v after a second signal", n, worstEnd.Round(time.Millisecond), worstHalt.Round(time.Millisecond))
}
