package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	status := http.StatusOK
	asked := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.WriteHeader(status)
	}))
	defer srv.Close()
	_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")
	c := newCmd(t, "RTCD_API_HTTP_LISTENADDRESS=:"+port)
	if out := c.ok("", "healthcheck"); out != "" || asked != "/healthz" {
		t.Errorf("printed %q, asked for %q", out, asked)
	}
	if c.ok("", "healthcheck", "-ready"); asked != "/ready" {
		t.Errorf("asked for %q", asked)
	}
	status = http.StatusServiceUnavailable
	c.fails(1, "/ready answers 503", "", "healthcheck", "-ready")
	c.fails(2, "unexpected argument", "", "healthcheck", "now")
	srv.Close()
	c.fails(1, "refused", "", "healthcheck")
}
