package service_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// A ticketOffice makes tickets, and keeps them to look for them later.
type ticketOffice struct {
	caller
	all []string
}

func (o *ticketOffice) ticket() string {
	o.t.Helper()
	r := o.must(http.StatusCreated, "POST", "/ws/tickets", "")
	ticket := r.field("ticket")
	expires, err := time.Parse(time.RFC3339Nano, r.field("expiresAt"))
	if until := time.Until(expires); err != nil || until < 30*time.Second || until > time.Minute || r.field("url") != "/ws" ||
		r.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(ticket, "rtcdwt_") {
		o.t.Errorf("a ticket: %s, expires in %v: %v", r.body, until, err)
	}
	o.all = append(o.all, ticket)
	return ticket
}

// A presentation is one way to show a ticket.
type presentation struct {
	from   string // address; empty: any
	query  bool   // and not as a subprotocol
	header http.Header
	offer  []string // subprotocols beside it
}

// present opens a WebSocket with a ticket. It returns the status and which subprotocol was chosen.
func present(url, ticket string, p presentation) (status int, chosen string) {
	d := websocket.Dialer{HandshakeTimeout: 30 * time.Second, Subprotocols: p.offer}
	if p.from != "" {
		d.NetDialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}}).DialContext
	}
	url = "ws" + strings.TrimPrefix(url, "http") + "/ws"
	if p.query {
		url += "?ticket=" + ticket
	} else {
		d.Subprotocols = append(d.Subprotocols, "rtcd.ticket."+ticket)
	}
	c, resp, err := d.Dial(url, p.header)
	if resp == nil {
		return 0, fmt.Sprint(err)
	}
	_ = resp.Body.Close()
	if err == nil {
		chosen = c.Subprotocol()
		_ = c.Close()
	}
	return resp.StatusCode, chosen
}

// TestTickets shows OT-07 from end to end: a ticket opens one WebSocket, whoever tries at once, from the
// address it was made for, and is good for nothing else. There are 64 of a client at most, and they
// show up in no log.
func TestTickets(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	log, dir := new(safeBuffer), t.TempDir()
	s := start(t, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug - 8})), func(c *config.Config) {
		c.Audit.Enable, c.Audit.Dir = "on", dir
	})
	office := &ticketOffice{caller: s.registered(t, "c1")}
	other := &ticketOffice{caller: s.registered(t, "c2")}

	t.Run("many at once", func(t *testing.T) {
		ticket := office.ticket()
		var opened, refused atomic.Int32
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				switch status, what := present(s.url, ticket, presentation{query: i%2 == 0}); status {
				case http.StatusSwitchingProtocols:
					opened.Add(1)
				case http.StatusUnauthorized:
					refused.Add(1)
				default:
					t.Errorf("status %d %s", status, what)
				}
			})
		}
		all.Wait()
		if opened.Load() != 1 || refused.Load() != 49 {
			t.Errorf("%d WebSockets opened with one ticket, %d refused", opened.Load(), refused.Load())
		}
		for _, query := range []bool{true, false} {
			if status, _ := present(s.url, ticket, presentation{query: query}); status != http.StatusUnauthorized {
				t.Errorf("used again: %d", status)
			}
		}
	})

	t.Run("presented", func(t *testing.T) {
		for _, c := range []struct {
			p      presentation
			status int
			chosen string
		}{
			{presentation{query: true}, 101, ""},
			{presentation{}, 101, ""},
			{presentation{offer: []string{wire.SubprotocolV2}}, 101, wire.SubprotocolV2},
			{presentation{query: true, offer: []string{"chat", wire.SubprotocolV2}}, 101, wire.SubprotocolV2},
			{presentation{header: http.Header{"Authorization": {basic("c1", key)}}}, 401, ""},
		} {
			if status, chosen := present(s.url, office.ticket(), c.p); status != c.status || chosen != c.chosen {
				t.Errorf("%+v: %d, subprotocol %q", c.p, status, chosen)
			}
		}
		two := office.ticket()
		if status, _ := present(s.url, office.ticket(), presentation{offer: []string{"rtcd.ticket." + two}}); status != 401 {
			t.Errorf("two tickets: %d", status)
		}
		for what, wrong := range map[string]string{
			"nothing": "", "half": two[:40], "longer": two + "A", "another secret": two[:len(two)-43] + strings.Repeat("A", 43), "a key": key,
		} {
			if status, _ := present(s.url, wrong, presentation{query: true}); status != 401 {
				t.Errorf("%s: %d", what, status)
			}
		}
		if status, _ := present(s.url, two, presentation{}); status != 101 { // that was not used up by all this
			t.Errorf("the good one: %d", status)
		}
	})

	t.Run("elsewhere", func(t *testing.T) {
		// A ticket that comes from another address has been seen by somebody: it is burnt.
		ticket := office.ticket()
		if status, what := present(s.url, ticket, presentation{from: "127.0.0.2"}); status != 401 {
			t.Errorf("from another address: %d %s", status, what)
		}
		if status, _ := present(s.url, ticket, presentation{from: "127.0.0.1"}); status != 401 {
			t.Errorf("from its own address afterwards: %d", status)
		}
		// It is no other credential.
		ticket = office.ticket()
		for _, header := range []string{"Bearer " + ticket, basic("c1", ticket), basic("", ticket)} {
			caller{t: t, url: s.url, authorization: header}.must(401, "GET", "/calls", "")
			caller{t: t, url: s.url, authorization: header}.must(401, "GET", "/ws", "")
		}
		office.refused(400, "secret_in_url", "GET", "/calls?ticket="+ticket, "")
		caller{t: t, url: s.url}.must(401, "POST", "/ws/tickets", "")
		if status, _ := present(s.url, ticket, presentation{}); status != 101 {
			t.Errorf("in its place: %d", status)
		}
	})

	t.Run("too many", func(t *testing.T) {
		var last string
		for range 64 {
			last = other.ticket()
		}
		r := other.refused(429, "rate_limited", "POST", "/ws/tickets", "")
		if wait, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
			t.Errorf("to be tried again after %q", r.header.Get("Retry-After"))
		}
		office.ticket()
		if status, _ := present(s.url, last, presentation{}); status != 101 {
			t.Errorf("the 64th: %d", status)
		}
		other.ticket()
		_, text := request(t, "GET", s.url+"/metrics", "", "", "")
		if !strings.Contains(text, `rtcd_limit_hits_total{limit="tickets_per_client"} 1`) {
			t.Error("the limit is not counted")
		}
	})

	t.Run("in a call", func(t *testing.T) { // by who knows no key
		c, err := client.New(client.Config{
			URL: s.url, ClientID: "c1", V2: true,
			Ticket: func(context.Context) (string, error) { return office.ticket(), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseIdleConnections()
		conn, err := c.Connect(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		all := people(ctx, t, rtctest.NewRemote(t, conn), "call", "s1", "s2")
		rtctest.Talk(t, all)
		more(ctx, t, all["s1"], "s2", 10)
		office.must(200, "GET", "/calls/call", "")
		other.must(404, "GET", "/calls/call", "")
	})

	s.stop() // all is written when it has ended
	err := <-s.done
	s.done <- err
	texts := map[string]string{"log": log.String(), "audit": auditText(t, dir)}
	for name, text := range texts {
		if !strings.Contains(text, "c1") {
			t.Errorf("nothing of the client in the %s", name)
		}
		for _, ticket := range append(office.all, other.all...) {
			if secret := ticket[len(ticket)-43:]; strings.Contains(text, ticket) || strings.Contains(text, secret) {
				t.Fatalf("a ticket in the %s", name)
			}
		}
	}
	if n := strings.Count(texts["audit"], `"ticket.mint"`); n < len(office.all)+len(other.all) {
		t.Errorf("%d events of %d tickets", n, len(office.all)+len(other.all))
	}
}
