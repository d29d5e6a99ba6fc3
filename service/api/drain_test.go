package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"rtcd/service/api"
)

// DrainState, Drain and Undrain make a world an api.Drainer: it notes what it was asked for.
func (w *world) DrainState() api.DrainState { return w.drain }

func (w *world) Drain(r api.DrainRequest) (api.DrainState, error) {
	if w.drain.Signal {
		return api.DrainState{}, api.Refuse(http.StatusConflict, "shutting_down", errors.New("the server is ending"))
	}
	w.did = append(w.did, "drain")
	w.drained = append(w.drained, r)
	w.drain.Draining = true
	return w.drain, nil
}

func (w *world) Undrain() (api.DrainState, error) {
	w.did = append(w.did, "undrain")
	w.drain.Draining = false
	return w.drain, nil
}

func TestDrainRequests(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		body     string
		deadline time.Duration // -1: none
		exit     *bool
	}{
		{``, -1, nil},
		{`{}`, -1, nil},
		{`{"deadline":90}`, 90 * time.Second, nil},
		{`{"deadline":0.25}`, 250 * time.Millisecond, nil},
		{`{"deadline":"90m"}`, 90 * time.Minute, nil},
		{`{"deadline":0}`, 0, nil},
		{`{"deadline":"0s","exit":false}`, 0, &no},
		{`{"exit":true}`, -1, &yes},
		{`{"deadline":2592000}`, 30 * 24 * time.Hour, nil},
	} {
		w := newWorld(t, setup{cfg: adm})
		if rec := w.ask("POST", "/admin/drain", c.body, admin); rec.Code != 200 || len(w.drained) != 1 {
			t.Errorf("%s: %d %s", c.body, rec.Code, rec.Body)
			continue
		}
		r := w.drained[0]
		if (r.Deadline == nil) != (c.deadline < 0) || r.Deadline != nil && *r.Deadline != c.deadline {
			t.Errorf("%s: deadline %v", c.body, r.Deadline)
		}
		if (r.Exit == nil) != (c.exit == nil) || r.Exit != nil && *r.Exit != *c.exit {
			t.Errorf("%s: exit %v", c.body, r.Exit)
		}
	}
	for _, body := range []string{
		`{"deadline":-1}`, `{"deadline":"-1s"}`, `{"deadline":2592001}`, `{"deadline":1e3}`, `{"deadline":true}`, `{"deadline":null}`,
		`{"deadline":"soon"}`, `{"deadline":"` + strings.Repeat("1", 40) + `s"}`, `{"deadline":"9999999999h"}`, `{"exit":"yes"}`, `{"until":1}`, `[]`, `{`,
	} {
		w := newWorld(t, setup{cfg: adm})
		if rec := w.ask("POST", "/admin/drain", body, admin); rec.Code != 400 || len(w.did) != 0 {
			t.Errorf("%s: %d %s", body, rec.Code, rec.Body)
		}
	}
}

func TestDrainAnswers(t *testing.T) {
	w := newWorld(t, setup{cfg: adm})
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 3600))
	w.drain = api.DrainState{Draining: true, Exit: true, Signal: true, Sessions: 7, Calls: 2, Deadline: at}
	rec := w.ask("GET", "/admin/drain", "", admin)
	if got, want := rec.Body.String(), `{"draining":true,"sessions":7,"calls":2,"deadline":"2026-11-24T11:00:00Z","exit":true,"signal":true}`+"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	rec = w.ask("POST", "/admin/drain", "", admin)
	var refusal struct{ Code, Reason string }
	if err := json.Unmarshal(rec.Body.Bytes(), &refusal); err != nil || rec.Code != 409 || refusal.Reason != "shutting_down" {
		t.Errorf("%d %s %v", rec.Code, rec.Body, err)
	}
	w.drain = api.DrainState{}
	if rec := w.ask("DELETE", "/admin/drain", "", admin); !strings.Contains(rec.Body.String(), `"deadline":null`) {
		t.Errorf("without a deadline: %s", rec.Body)
	}
}
