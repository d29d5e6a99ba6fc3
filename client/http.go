package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Names of requests in errors.
const (
	opRegister   = "register"
	opUnregister = "unregister"
	opLogin      = "log in"
	opVersion    = "get version"
	opSystem     = "get load"
	opSessions   = "list sessions"
	opSession    = "get session"
	opConnect    = "connect"
	opTicket     = "make ticket"
)

const (
	maxErrorBody  = 4 << 10
	maxAnswerBody = 16 << 20 // some 50,000 sessions in one call
)

// A Version describes the server's build.
type Version struct {
	BuildDate    string `json:"buildDate"`
	BuildVersion string `json:"buildVersion"` // such as "v1.3.0"
	BuildHash    string `json:"buildHash"`
	GoVersion    string `json:"goVersion"`
	GoOS         string `json:"goOS"`
	GoArch       string `json:"goArch"`
}

// A Session is one end user's connection in a call, as the server lists it.
type Session struct {
	GroupID   string // the client id
	CallID    string
	UserID    string
	SessionID string
	Props     Props
}

// Props are what the join of a session carried. What it did not carry is nil.
type Props struct {
	AV1Support  *bool   `json:"av1Support"`
	ChannelID   *string `json:"channelID"`
	DCSignaling *bool   `json:"dcSignaling"`
}

// Register makes the server know the client id and key. It uses the admin key if there is one;
// without, the server has to allow self registration. A taken id is ErrAlreadyRegistered, also
// if it was taken by an earlier call with the same key.
func (c *Client) Register(ctx context.Context) error {
	return c.do(ctx, request{
		op: opRegister, method: http.MethodPost, path: "/register", auth: c.administration(),
		body: map[string]string{"clientID": c.cfg.ClientID, "authKey": c.cfg.AuthKey},
	})
}

// Unregister makes the server forget the client. Its connections are cut, its sessions end. It
// uses the admin key if there is one, else the client's own.
func (c *Client) Unregister(ctx context.Context) error {
	r := request{
		op: opUnregister, method: http.MethodPost, path: "/unregister", auth: c.administration(),
		body: map[string]string{"clientID": c.cfg.ClientID},
	}
	if c.cfg.AdminKey == "" {
		return c.doAuthorized(ctx, r)
	}
	return c.do(ctx, r)
}

// administration returns the credentials for a registration.
func (c *Client) administration() string {
	if c.cfg.AdminKey != "" {
		return basic("", c.cfg.AdminKey)
	}
	return ""
}

// Login gets a bearer token and uses it from now on in place of the key; once the server does
// not take it any more, the Client logs in again. The server keeps one token per client: a
// login elsewhere with the same id ends this one.
func (c *Client) Login(ctx context.Context) (token string, err error) {
	var answer struct {
		BearerToken string `json:"bearerToken"`
	}
	err = c.do(ctx, request{
		op: opLogin, method: http.MethodPost, path: "/login", answer: &answer,
		body: map[string]string{"clientID": c.cfg.ClientID, "authKey": c.cfg.AuthKey},
	})
	if err != nil {
		return "", err
	}
	if answer.BearerToken == "" || !headerSafe(answer.BearerToken) {
		return "", errors.New("log in: no usable token in the server's answer")
	}
	c.mu.Lock()
	c.token = answer.BearerToken
	c.mu.Unlock()
	return answer.BearerToken, nil
}

// Ticket gets a ticket with which somebody else can open one WebSocket as this client, without its
// key: once, from the same network address, within the time the server gives it, a minute by default.
func (c *Client) Ticket(ctx context.Context) (ticket string, expires time.Time, err error) {
	var answer struct {
		Ticket    string    `json:"ticket"`
		ExpiresAt time.Time `json:"expiresAt"`
	}
	err = c.doAuthorized(ctx, request{op: opTicket, method: http.MethodPost, path: "/ws/tickets", answer: &answer})
	switch {
	case err != nil:
		return "", time.Time{}, err
	case !ticketSafe(answer.Ticket):
		return "", time.Time{}, errors.New("make ticket: no usable ticket in the server's answer")
	}
	return answer.Ticket, answer.ExpiresAt, nil
}

// ticketSafe reports whether a ticket can stand in a list of subprotocols (RFC 9110 section 5.6.2).
func ticketSafe(s string) bool {
	return s != "" && len(s) <= 256 && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-.~", r))
	})
}

func headerSafe(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= 4096
}

// Version asks for the server's build. It needs no credentials, so it tells whether a server is up.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	err := c.do(ctx, request{op: opVersion, method: http.MethodGet, path: "/version", answer: &v})
	return v, err
}

// System asks for the server's load: 1 / idle CPU seconds per second. The fuller the machine,
// the larger; 0 means not yet known. Of several servers the one with the smallest number is the
// best place for a new call.
func (c *Client) System(ctx context.Context) (load float64, err error) {
	var answer struct {
		CPULoad float64 `json:"cpu_load"`
	}
	err = c.do(ctx, request{op: opSystem, method: http.MethodGet, path: "/system", answer: &answer})
	if err == nil && (answer.CPULoad < 0 || math.IsInf(answer.CPULoad, 0)) {
		return 0, fmt.Errorf("get load: server answered %v", answer.CPULoad)
	}
	return answer.CPULoad, err
}

// Sessions lists the sessions of a call of this client, in any order. A call that is not there
// is ErrNotFound, which proves that it is over; any other error proves nothing.
func (c *Client) Sessions(ctx context.Context, callID string) ([]Session, error) {
	if callID == "" {
		return nil, fmt.Errorf("list sessions: empty call id: %w", ErrNotFound)
	}
	var sessions []Session
	err := c.doAuthorized(ctx, request{
		op: opSessions, method: http.MethodGet, answer: &sessions,
		path: "/calls/" + url.PathEscape(callID) + "/sessions",
	})
	return sessions, err
}

// Session returns one session. One that is not there, or is another client's, is ErrNotFound.
func (c *Client) Session(ctx context.Context, callID, sessionID string) (Session, error) {
	if callID == "" || sessionID == "" {
		return Session{}, fmt.Errorf("get session: empty id: %w", ErrNotFound)
	}
	var s Session
	err := c.doAuthorized(ctx, request{
		op: opSession, method: http.MethodGet, answer: &s,
		path: "/calls/" + url.PathEscape(callID) + "/sessions/" + url.PathEscape(sessionID),
	})
	return s, err
}

// A request is one exchange with the server.
type request struct {
	op, method, path string
	auth             string            // value of the Authorization header
	body             map[string]string // sent as JSON
	answer           any               // decoded from JSON; nil: not looked at
}

// doAuthorized makes a request with the client's credentials. A refused token is replaced once.
func (c *Client) doAuthorized(ctx context.Context, r request) error {
	header, token, err := c.authorization(ctx)
	if err != nil {
		return err
	}
	r.auth = header
	err = c.do(ctx, r)
	if !errors.Is(err, ErrUnauthorized) || !c.forget(token) {
		return err
	}
	if token, err = c.Login(ctx); err != nil {
		return err
	}
	r.auth = "Bearer " + token
	return c.do(ctx, r)
}

func (c *Client) do(ctx context.Context, r request) error {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return fmt.Errorf("%s: encode body: %w", r.op, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.endpoint(r.path), body)
	if err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	if r.auth != "" {
		req.Header.Set("Authorization", r.auth)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return refused(r.op, resp)
	}
	if r.answer == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)) // so that the connection is used again
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: read answer: %w", r.op, err)
	case len(data) > maxAnswerBody:
		return fmt.Errorf("%s: answer is larger than %d bytes", r.op, maxAnswerBody)
	}
	if err := json.Unmarshal(data, r.answer); err != nil {
		return fmt.Errorf("%s: decode answer: %w", r.op, err)
	}
	return nil
}

// refused returns the error of an answer that is not a success.
func refused(op string, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what came is better than nothing
	return apiError(op, resp, text)
}

// endpoint returns the URL of a path whose parts are escaped.
func (c *Client) endpoint(path string) string {
	u := *c.base
	u.Path, u.RawPath = "", ""
	return u.String() + strings.TrimRight(c.base.EscapedPath(), "/") + path
}
