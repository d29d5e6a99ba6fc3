package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"rtcd/config"
	"rtcd/service/api"
)

const maxAnswer = 4 << 20 // bytes of a JSON answer

// adminFlags say how to reach the admin listener of a running server.
type adminFlags struct {
	url      string
	keyFile  string
	caFile   string
	certFile string
	certKey  string
}

func (f *adminFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.url, "admin", "", "`URL` of the admin listener of a running server, such as http://127.0.0.1:8046")
	flags.StringVar(&f.keyFile, "admin-key-file", "", "`file` with the admin key; without it that of the configuration")
	flags.StringVar(&f.caFile, "admin-ca", "", "PEM `file` of the authorities of the listener's certificate; without it those of the system")
	flags.StringVar(&f.certFile, "admin-cert", "", "PEM `file` of a client certificate")
	flags.StringVar(&f.certKey, "admin-cert-key", "", "PEM `file` of its key")
}

// An adminClient speaks to the admin listener.
type adminClient struct {
	base     *url.URL
	key      string
	http     *http.Client
	warnings io.Writer
}

// connect prepares requests to the server; it sends nothing yet.
func (f *adminFlags) connect(cfg config.Config, warnings io.Writer) (*adminClient, error) {
	base, err := url.Parse(strings.TrimSuffix(f.url, "/"))
	switch {
	case err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.User != nil || base.RawQuery != "" || base.Path != "":
		return nil, fmt.Errorf("-admin %q: must be like http://127.0.0.1:8046", f.url)
	case base.Scheme == "http" && !isLoopback(base.Hostname()):
		return nil, fmt.Errorf("-admin %q: the admin key is not sent to another machine in clear: use https", f.url)
	}
	key := cfg.API.Security.AdminSecretKey.Reveal()
	if f.keyFile != "" {
		if key, err = readKeyFile(f.keyFile); err != nil {
			return nil, err
		}
	}
	if key == "" {
		return nil, errors.New("no admin key: neither -admin-key-file nor api.security.admin_secret_key")
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caFile != "" {
		data, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("-admin-ca: %w", err)
		}
		if secure.RootCAs = x509.NewCertPool(); !secure.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("-admin-ca %s: no certificate in it", f.caFile)
		}
	}
	if f.certFile != "" || f.certKey != "" {
		pair, err := tls.LoadX509KeyPair(f.certFile, f.certKey)
		if err != nil {
			return nil, fmt.Errorf("-admin-cert: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	return &adminClient{
		base: base, key: key, warnings: warnings,
		http: &http.Client{
			// Not through a proxy of the environment, and to nowhere else: the key goes along.
			Transport:     &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// Close releases nothing: connections end with their requests.
func (a *adminClient) Close() error { return nil }

// send makes a request and returns its answer, which has a status of success and which the caller
// closes.
func (a *adminClient) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base.String()+path, content)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.SetBasicAuth("", a.key)
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err // names method and URL, in which no secret stands
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var refusal struct{ Error, Reason string }
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if json.Unmarshal(data, &refusal) == nil && refusal.Error != "" {
		return nil, fmt.Errorf("%s: %s (%s)", resp.Status, shownID(refusal.Error), refusal.Reason)
	}
	return nil, fmt.Errorf("%s %s: %s", method, path, resp.Status)
}

// call makes a request and decodes the answer into out, unless that is nil.
func (a *adminClient) call(ctx context.Context, method, path string, body, out any) error {
	resp, err := a.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case len(data) > maxAnswer:
		return fmt.Errorf("read answer: larger than %d bytes", maxAnswer)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

func tenantPath(id, action string) string { return "/admin/clients/" + url.PathEscape(id) + action }

// Add implements directory.
func (a *adminClient) Add(ctx context.Context, id, key string, roles []string) error {
	body := struct {
		ClientID string    `json:"clientID"`
		AuthKey  string    `json:"authKey"`
		Roles    *[]string `json:"roles,omitempty"`
	}{ClientID: id, AuthKey: key}
	if roles != nil {
		body.Roles = &roles
	}
	return a.roleCall(ctx, http.MethodPost, "/admin/clients", body)
}

// SetRoles implements directory.
func (a *adminClient) SetRoles(ctx context.Context, id string, roles []string) error {
	body := struct {
		Roles []string `json:"roles"`
	}{roles}
	return a.roleCall(ctx, http.MethodPut, tenantPath(id, "/roles"), body)
}

// roleCall makes a request with roles, and tells which of them give no right.
func (a *adminClient) roleCall(ctx context.Context, method, path string, body any) error {
	var answer struct {
		UnknownRoles []string `json:"unknownRoles"`
	}
	if err := a.call(ctx, method, path, body, &answer); err != nil {
		return err
	}
	for _, role := range answer.UnknownRoles {
		_, _ = fmt.Fprintf(a.warnings, "rtcd: warning: role %s gives no right: nothing asks for it\n", shownID(role))
	}
	return nil
}

// List implements directory.
func (a *adminClient) List(ctx context.Context, after string, limit int) ([]api.Tenant, error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if after != "" {
		query.Set("after", after)
	}
	var answer struct {
		Clients []api.Tenant `json:"clients"`
	}
	if err := a.call(ctx, http.MethodGet, "/admin/clients?"+query.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	return answer.Clients, nil
}

// Rotate implements directory.
func (a *adminClient) Rotate(ctx context.Context, id, key string, grace time.Duration) error {
	return a.call(ctx, http.MethodPost, tenantPath(id, "/rotate"), struct {
		AuthKey      string `json:"authKey"`
		GraceSeconds int    `json:"graceSeconds"`
	}{key, int(grace.Round(time.Second) / time.Second)}, nil)
}

// Revoke implements directory.
func (a *adminClient) Revoke(ctx context.Context, id string) error {
	return a.call(ctx, http.MethodPost, tenantPath(id, "/revoke"), nil, nil)
}

// Remove implements directory.
func (a *adminClient) Remove(ctx context.Context, id string) error {
	return a.call(ctx, http.MethodDelete, tenantPath(id, ""), nil, nil)
}
