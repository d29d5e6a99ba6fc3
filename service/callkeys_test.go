package service_test

import (
	"strings"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
)

// TestCallKeys shows OT-13 and fair share: 0 means that no call lingers, not the default, and a client that
// makes too many tokens shows in the metric of limits.
func TestCallKeys(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s := start(t, nil, func(c *config.Config) { c.Call.Linger, c.Call.TokensPerMinute = 0, 1 })
	c1 := s.registered(t, "c1")
	call := c1.create("")
	c1.must(201, "POST", "/calls/"+call+"/tokens", `{"userID":"u"}`)
	c1.refused(429, "rate_limited", "POST", "/calls/"+call+"/tokens", `{"userID":"u"}`)
	if _, text := request(t, "GET", s.url+"/metrics", "", "", ""); !strings.Contains(text, `rtcd_limit_hits_total{limit="tokens_per_minute"} 1`) {
		t.Error("the limit does not show in the metrics")
	}
	r := c1.dial("c1", key, true)
	if err := r.Conn.Join(client.Join{CallID: call, UserID: "u", SessionID: "s"}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "it is in", func() bool { return c1.do("GET", "/calls/"+call+"/sessions/s", "").status == 200 })
	leave(ctx, t, r, "s")
	left := time.Now()
	eventually(ctx, t, "the call is over", func() bool { return c1.do("GET", "/calls/"+call, "").status == 404 })
	if d := time.Since(left); d > 20*time.Second {
		t.Errorf("the call was over after %v", d)
	}
}
