package service_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"rtcd/config"
)

// TestKeysAreForLoginOnly shows OT-02: with the scope "login" a key is good at /login alone; everything else takes the token of
// that. A refreshed token replaces the former one, of which nothing is left; a token with any of its bits changed is none, and
// neither is that of a client that is no more. Operators are not affected.
func TestKeysAreForLoginOnly(t *testing.T) {
	t.Parallel()
	w := startRecorded(t, nil, func(c *config.Config) { c.API.Security.BasicAuthScope = "login" })
	account := fmt.Sprintf(`{"clientID":"a","authKey":%q}`, key)
	try := func(method, path, token string) answer {
		return probe{method: method, url: w.url + path, token: token}.do(t)
	}
	login := func() string {
		t.Helper()
		return probe{method: "POST", url: w.url + "/login", body: account}.do(t).field(t, "bearerToken")
	}
	if a := (probe{method: "POST", url: w.url + "/register", body: account}).do(t); a.status != 201 {
		t.Fatalf("register: %d %s", a.status, a.body)
	}

	// The key itself, right or wrong, everywhere else.
	for _, request := range []string{
		"GET /calls", "POST /calls", "GET /calls/x", "DELETE /calls/x", "POST /calls/x/tokens", "GET /calls/x/sessions", "GET /calls/x/sessions/s",
		"DELETE /calls/x/sessions/s", "POST /calls/x/moderate", "PUT /clients/self/key", "POST /token/refresh", "POST /ws/tickets", "GET /ws",
		"POST /unregister",
	} {
		method, path, _ := strings.Cut(request, " ")
		for _, k := range []string{key, key + "-wrong"} {
			a := probe{method: method, url: w.url + path, user: "a", key: k}.do(t)
			if a.status != 401 || !strings.Contains(strings.ReplaceAll(a.body, "use a bearer token", "use_bearer"), "use_bearer") {
				t.Errorf("%s with a key: %d %s", request, a.status, a.body)
			}
		}
	}
	if _, err := w.open(t, "", withKey("a", key), ""); err == nil {
		t.Error("a websocket opens with a key")
	}

	// The token does.
	first := login()
	if a := try("GET", "/calls", first); a.status != 200 {
		t.Errorf("with a token: %d %s", a.status, a.body)
	}
	w.mustOpen(t, "", withToken(first), "").send(t)

	// Refreshed, the former is dead, also for refreshing, and the open connection lives on.
	open := w.mustOpen(t, "", withToken(first), "")
	second := try("POST", "/token/refresh", first).field(t, "bearerToken")
	if second == first || len(second) != 32 {
		t.Errorf("a token of %d characters; the same as before: %v", len(second), second == first)
	}
	for _, request := range []string{"GET /calls", "POST /token/refresh", "POST /ws/tickets", "GET /ws"} {
		method, path, _ := strings.Cut(request, " ")
		if a := try(method, path, first); a.status != 401 {
			t.Errorf("%s with the former token: %d %s", request, a.status, a.body)
		}
	}
	if a := try("GET", "/calls", second); a.status != 200 {
		t.Errorf("with the refreshed token: %d %s", a.status, a.body)
	}
	open.send(t)

	// 200 tokens, each with one bit changed; half of them of what it stands for, half as it is sent.
	alive := second
	accepted := 0
	for i := range 200 {
		raw, err := base64.RawURLEncoding.DecodeString(alive)
		if err != nil {
			t.Fatal(err)
		}
		flipped := []byte(alive)
		if bits := 8 * len(raw); i < bits/2 { // of what it stands for
			at := 2*i + rand.IntN(2)
			raw[at/8] ^= 1 << (at % 8)
			flipped = []byte(base64.RawURLEncoding.EncodeToString(raw))
		} else { // of its characters, as they are sent
			at := rand.IntN(8 * len(flipped))
			flipped[at/8] ^= 1 << (at % 8)
			if c := flipped[at/8]; c < 0x21 || c > 0x7e { // not to be sent in a header
				flipped[at/8] = '!'
			}
		}
		if a := try("GET", "/calls", string(flipped)); a.status != 401 {
			accepted++
			t.Errorf("%s with one bit of %s changed: %d", flipped, alive, a.status)
		}
		if alive = try("POST", "/token/refresh", alive).field(t, "bearerToken"); i%50 == 0 {
			if a := try("GET", "/calls", alive); a.status != 200 {
				t.Errorf("token %d itself: %d %s", i, a.status, a.body)
			}
		}
	}
	if a := try("GET", "/calls", alive); a.status != 200 {
		t.Errorf("the token itself after that: %d %s", a.status, a.body)
	}

	// Operators come with their keys, and end the client and its token.
	if a := (probe{method: "GET", url: w.admin + "/admin/clients", key: adminKey}).do(t); a.status != 200 {
		t.Errorf("the operator: %d %s", a.status, a.body)
	}
	if a := (probe{method: "DELETE", url: w.admin + "/admin/clients/a", key: adminKey}).do(t); a.status != 200 {
		t.Errorf("remove: %d %s", a.status, a.body)
	}
	<-open.done
	for _, request := range []string{"GET /calls", "POST /token/refresh", "GET /ws"} {
		method, path, _ := strings.Cut(request, " ")
		if a := try(method, path, alive); a.status != 401 {
			t.Errorf("%s with the token of an ended client: %d %s", request, a.status, a.body)
		}
	}
	// Nor does it come back with an id that is registered anew.
	if a := (probe{method: "POST", url: w.url + "/register", body: account}).do(t); a.status != 201 {
		t.Fatalf("register anew: %d %s", a.status, a.body)
	}
	if a := try("GET", "/calls", alive); a.status != 401 {
		t.Errorf("the token of before, for a client registered anew: %d", a.status)
	}
	t.Logf("%d of 200 changed tokens taken", accepted)
}
