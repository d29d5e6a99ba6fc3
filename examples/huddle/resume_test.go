package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/service/api/wire"
)

// again opens a WebSocket with the token of a browser that was lost.
func (r *rig) again(token string) (*browser, notice) {
	r.t.Helper()
	u := "ws" + strings.TrimPrefix(r.web.URL, "http") + "/ws?room=lobby&name=Ann&token=" + token
	ws, _, err := websocket.DefaultDialer.Dial(u, http.Header{"Origin": {r.web.URL}})
	if err != nil {
		r.t.Fatalf("browser: %v", err)
	}
	r.t.Cleanup(func() { _ = ws.Close() })
	b := &browser{t: r.t, ws: ws}
	for {
		if n := b.next(); n.Type == "welcome" {
			b.id, b.token = n.ID, n.Token
			return b, n
		}
	}
}

// A browser whose WebSocket breaks, or seems fine to the server though it is dead, goes on with
// its session; the others and rtcd do not notice.
func TestResume(t *testing.T) {
	for name, lose := range map[string]func(*browser){
		"broken":    func(b *browser) { _ = b.ws.UnderlyingConn().Close() },
		"half open": func(*browser) {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			r.hub.grace = time.Hour
			ann, first := r.enter("lobby", "Ann")
			bob, _ := r.enter("lobby", "Bob")
			lose(ann)
			back, welcome := r.again(ann.token)
			if !welcome.Back || back.id != ann.id || back.token != ann.token || first.Back || len(welcome.People) != 2 {
				t.Errorf("welcomed back with %s", text(welcome))
			}
			ann.wantGone()
			back.send(`{"type":"unmute"}`)
			r.want("rtc " + ann.id + " 4 ") // neither a leave nor a join came before
			if n := bob.next(); n.Type != "person" || n.Person.ID != ann.id || n.Person.Muted {
				t.Errorf("Bob hears %s", text(n))
			}
			r.rtcd.signal(ann.id, wire.SignalSDP, map[string]string{"type": "offer"})
			for n := back.next(); n.Type != "sdp"; n = back.next() {
				if n.Type != "person" {
					t.Fatalf("Ann got %s", text(n))
				}
			}
			back.closeInOrder()
			r.want("leave " + ann.id)

			// The token is good no longer, and what everybody knows was never good.
			for _, token := range []string{ann.token, bob.id, "", "x"} {
				stranger, welcome := r.again(token)
				r.want("join lobby " + stranger.id)
				if welcome.Back || stranger.id == ann.id || stranger.id == bob.id {
					t.Errorf("token %q: welcomed with %s", token, text(welcome))
				}
			}
		})
	}
}

func awayHub(t *testing.T) (*hub, *quietRTCD, *participant) {
	t.Helper()
	q := &quietRTCD{}
	h := newHub(q, slog.New(slog.DiscardHandler))
	p, err := h.enter(visitor{room: "room", name: "Ann"}, &link{})
	if err != nil {
		t.Fatal(err)
	}
	h.detach(p, p.link, true)
	return h, q, p
}

// count returns how many sessions huddle left and how many it still keeps.
func count(h *hub, q *quietRTCD) (left, kept int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(q.left), len(h.all) + len(h.rooms) + len(h.tokens)
}

// The session of a lost browser ends after the grace, to the nanosecond, if it stays away.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q, p := awayHub(t)
		time.Sleep(defaultGrace - 1)
		synctest.Wait()
		if left, _ := count(h, q); left != 0 {
			t.Fatal("left too early")
		}
		// It comes back in time, and is lost again: the time starts anew.
		second := &link{}
		if h.resume(p.token, second) != p {
			t.Fatal("not known any more")
		}
		time.Sleep(time.Hour)
		h.detach(p, second, true)
		h.detach(p, second, false) // has been said
		time.Sleep(defaultGrace - 1)
		synctest.Wait()
		if left, _ := count(h, q); left != 0 {
			t.Fatal("left too early the second time")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if left, kept := count(h, q); left != 1 || kept != 0 {
			t.Errorf("left %d, kept %d", left, kept)
		}
		if h.resume(p.token, &link{}) != nil {
			t.Error("came back from the dead")
		}
	})
}

// What rtcd says meanwhile waits, in order.
func TestSignallingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, p := awayHub(t)
		<-p.out // the first welcome
		events := make(chan client.Event, 2)
		ref := client.Ref{SessionID: p.id}
		events <- client.Description{Ref: ref, Data: []byte(`{"type":"offer"}`)}
		events <- client.Candidate{Ref: ref, Data: []byte(`{}`)}
		close(events)
		h.serve(events)
		if h.resume(p.token, &link{}) != p {
			t.Fatal("not known any more")
		}
		for _, want := range []string{"sdp", "ice", "welcome"} {
			if n := (<-p.out).(notice); n.Type != want {
				t.Errorf("got %s, want %s", text(n), want)
			}
		}
		h.close()
	})
}

// A lost browser is not waited for once its session has ended or too much waits for it.
func TestAwayAndDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q, p := awayHub(t)
		for range queueLength {
			h.mu.Lock()
			h.tell(p, notice{Type: "voice"})
			h.mu.Unlock()
		}
		synctest.Wait()
		if left, kept := count(h, q); left != 1 || kept != 0 {
			t.Errorf("too much waits: left %d, kept %d", left, kept)
		}

		h, q, p = awayHub(t)
		events := make(chan client.Event, 1)
		events <- client.Closed{SessionID: p.id}
		close(events)
		h.serve(events)
		if h.resume(p.token, &link{}) != nil {
			t.Error("came back to a session that had ended")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if left, kept := count(h, q); left != 0 || kept != 0 {
			t.Errorf("the session had ended: left %d, kept %d", left, kept)
		}
	})
}
