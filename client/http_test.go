package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewRefuses(t *testing.T) {
	good := Config{URL: "http://h:8045", ClientID: "c", AuthKey: testKey}
	for name, change := range map[string]func(*Config){
		"no url":         func(c *Config) { c.URL = "" },
		"scheme":         func(c *Config) { c.URL = "ws://h:8045" },
		"no host":        func(c *Config) { c.URL = "http://" },
		"userinfo":       func(c *Config) { c.URL = "http://u:secret@h" },
		"not a url":      func(c *Config) { c.URL = "http://u:secret@[" },
		"query":          func(c *Config) { c.URL = "http://h/?a=b" },
		"no id":          func(c *Config) { c.ClientID = "" },
		"long id":        func(c *Config) { c.ClientID = strings.Repeat("c", 65) },
		"short key":      func(c *Config) { c.AuthKey = testKey[1:] },
		"long key":       func(c *Config) { c.AuthKey = strings.Repeat("k", 73) },
		"negative limit": func(c *Config) { c.SendQueue = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), testKey[1:]) {
			t.Errorf("%s: the error holds a secret: %v", name, err)
		}
	}
	if _, err := New(good); err != nil {
		t.Errorf("good: %v", err)
	}
}

func TestRegistration(t *testing.T) {
	s, ctx := newFakeServer(t), t.Context()
	s.set(func() { clear(s.clients) })
	plain := newClient(t, s.config())
	cfg := s.config()
	cfg.AdminKey = testAdmin
	admin := newClient(t, cfg)

	err := plain.Register(ctx)
	var refusal *APIError
	if !errors.As(err, &refusal) || refusal.Status != 401 || !errors.Is(err, ErrUnauthorized) {
		t.Errorf("register without the admin key: %v", err)
	}
	if _, err := plain.Login(ctx); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("login of an unknown client: %v", err)
	}
	if err := admin.Register(ctx); err != nil {
		t.Fatalf("register: %v", err)
	}
	if err := admin.Register(ctx); !errors.Is(err, ErrAlreadyRegistered) || errors.Is(err, ErrNotFound) {
		t.Errorf("register again: %v", err)
	}
	if _, err := plain.Login(ctx); err != nil {
		t.Errorf("login: %v", err)
	}
	if err := admin.Unregister(ctx); err != nil {
		t.Errorf("unregister: %v", err)
	}
	if err := admin.Unregister(ctx); !errors.Is(err, ErrNotFound) {
		t.Errorf("unregister again: %v", err)
	}
	s.set(func() { s.selfRegister = true })
	if err := plain.Register(ctx); err != nil {
		t.Errorf("self registration: %v", err)
	}
	if err := plain.Unregister(ctx); err != nil {
		t.Errorf("unregister oneself: %v", err)
	}
}

func TestQueries(t *testing.T) {
	s, ctx := newFakeServer(t), t.Context()
	c := newClient(t, s.config())
	channel := "ch"
	s.set(func() {
		s.sessions["a%2Fb"] = []Session{{GroupID: testID, CallID: "a/b", SessionID: "s1", Props: Props{ChannelID: &channel}}}
	})
	if v, err := c.Version(ctx); err != nil || v.BuildVersion != "v1.3.0" {
		t.Errorf("version %+v, %v", v, err)
	}
	if load, err := c.System(ctx); err != nil || load != 0.5 {
		t.Errorf("load %v, %v", load, err)
	}
	if l, err := c.Sessions(ctx, "a/b"); err != nil || len(l) != 1 || *l[0].Props.ChannelID != "ch" || l[0].Props.AV1Support != nil {
		t.Errorf("sessions %+v, %v", l, err)
	}
	if one, err := c.Session(ctx, "a/b", "s1"); err != nil || one.CallID != "a/b" {
		t.Errorf("session %+v, %v", one, err)
	}
	if _, err := c.Sessions(ctx, "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such call: %v", err)
	}
}

// A refused token is replaced by one login; ids that basic authentication cannot carry use
// tokens from the start.
func TestTokens(t *testing.T) {
	s, ctx := newFakeServer(t), t.Context()
	s.set(func() {
		s.clients["a:b"] = testKey
		s.sessions["call"] = []Session{{SessionID: "s1"}}
	})
	cfg := s.config()
	cfg.ClientID = "a:b"
	c := newClient(t, cfg)
	for range 2 {
		if _, err := c.Sessions(ctx, "call"); err != nil {
			t.Fatalf("sessions: %v", err)
		}
	}
	s.set(func() {
		if s.logins != 1 {
			t.Errorf("%d logins for two requests, want 1", s.logins)
		}
		s.token = "restarted"
	})
	if _, err := c.Sessions(ctx, "call"); err != nil {
		t.Errorf("with a token the server forgot: %v", err)
	}
	s.set(func() { s.token, s.clients["a:b"] = "", "" })
	if _, err := c.Sessions(ctx, "call"); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("unregistered meanwhile: %v", err)
	}
}

func TestNonsenseAnswers(t *testing.T) {
	answers := map[string]string{
		"empty": "", "text": "hello", "null": "null", "array": "[1]", "deep": strings.Repeat("[", 100000),
		"string load": `{"cpu_load":"x"}`, "negative": `{"cpu_load":-1}`, "token": `{"bearerToken":"a\r\nb"}`,
	}
	for name, body := range answers {
		for _, status := range []int{200, 400, 500, 302} {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
			}))
			c := newClient(t, Config{URL: srv.URL, ClientID: testID, AuthKey: testKey})
			if _, err := c.Login(t.Context()); err == nil {
				t.Errorf("%s, %d: login succeeded", name, status)
			} else if strings.ContainsAny(err.Error(), "\r\n") || strings.Contains(err.Error(), testKey) {
				t.Errorf("%s, %d: error %q", name, status, err)
			}
			_, err := c.System(t.Context())
			if status == 302 && err == nil {
				t.Errorf("%s: redirect followed", name)
			}
			_, _ = c.Sessions(t.Context(), "call")
			if _, err := c.Connect(t.Context()); err == nil {
				t.Errorf("%s, %d: connected", name, status)
			}
			c.CloseIdleConnections()
			srv.Close()
		}
	}
}

func TestRequestEndsWithContext(t *testing.T) {
	reached, release := make(chan struct{}, 2), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	defer srv.Close()
	defer close(release)
	c := newClient(t, Config{URL: srv.URL, ClientID: testID, AuthKey: testKey, HTTPClient: srv.Client()})
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := c.Version(ctx); return err },
		func(ctx context.Context) error { _, err := c.Connect(ctx); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-reached; cancel() }()
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	s := newFakeServer(t)
	s.set(func() { s.down = 503 })
	_, err := newClient(t, s.config()).Connect(t.Context())
	var refusal *APIError
	if !errors.As(err, &refusal) || refusal.RetryAfter != 3*time.Second || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %#v", err)
	}
}
