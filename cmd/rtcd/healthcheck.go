package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"time"

	"rtcd/config"
)

const healthUsage = `usage:
  rtcd [-config PATH] healthcheck [-ready] [-timeout TIME]
Asks the server that this configuration is of, on this machine, whether it is well; with -ready, whether it
takes new calls. Status 0: yes.
`

// healthcheck is for containers, which have no other program to ask with.
func (c *cli) healthcheck(args []string) int {
	flags := flag.NewFlagSet("healthcheck", flag.ContinueOnError)
	ready := flags.Bool("ready", false, "ask whether it takes new calls")
	timeout := flags.Duration("timeout", 3*time.Second, "give up after this `time`")
	rest, status, ok := c.parse(flags, healthUsage, args)
	if !ok {
		return status
	}
	if len(rest) > 0 {
		return c.misuse(healthUsage, "unexpected argument %q", rest)
	}
	cfg, err := c.load()
	if err != nil {
		return c.end(err)
	}
	path := "/healthz"
	if *ready {
		path = "/ready"
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	return c.end(askHealth(ctx, cfg.API.HTTP, path))
}

// askHealth asks the API listener of this machine. Its certificate is not verified: it has the names that
// backends use, nothing secret is sent, and the answer is no more than yes or no.
func askHealth(ctx context.Context, api config.HTTP, path string) error {
	host, port, err := net.SplitHostPort(api.ListenAddress)
	if err != nil {
		return fmt.Errorf("api.http.listen_address: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // an image without files knows no localhost
	}
	scheme := "http"
	transport := &http.Transport{DisableKeepAlives: true}
	if api.TLS.Enable {
		if api.TLS.ClientAuth == config.ClientAuthRequire {
			return dial(ctx, net.JoinHostPort(host, port)) // the listener speaks to backends alone
		}
		scheme, transport.TLSClientConfig = "https", &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return nil
}

// dial reports whether anybody listens.
func dial(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
