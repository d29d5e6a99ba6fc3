package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/metrics"
)

// noCalls has no sessions.
type noCalls struct{}

func (noCalls) Join(ws.Peer, wire.Join) error            { return nil }
func (noCalls) Leave(string, string)                     {}
func (noCalls) Signal(string, string, wire.Signal) error { return nil }
func (noCalls) Exists(string, string) bool               { return false }
func (noCalls) Moderate(ws.Peer, wire.Moderate) error    { return nil }

// upgrader shows the WebSocket server to the API, and removes clients.
type upgrader struct {
	*ws.Server
	auth *fakeAuth
}

func (u upgrader) Serve(w http.ResponseWriter, r *http.Request, p api.Peer) {
	u.Server.Serve(w, r, ws.Peer{ClientID: p.ClientID, Epoch: p.Epoch, Roles: p.Roles, Remote: p.Remote})
}

func (u upgrader) Remove(ctx context.Context, clientID string) error {
	err := u.auth.Unregister(ctx, clientID)
	u.DropClient(clientID)
	return err
}

// The whole way: TLS, authentication, upgrade, and a connection that outlives the timeouts of
// HTTP requests and goes when its client is unregistered.
func TestWebSocketThroughTheAPI(t *testing.T) {
	cert, key := writePair(t, t.TempDir(), 1)
	m := metrics.New()
	sockets := ws.New(ws.Config{}, noCalls{}, m, nil)
	auth := &fakeAuth{keys: map[string]string{"c1": key1}}
	h := api.New(open, api.Deps{Auth: auth, Calls: fakeCalls{}, WebSockets: upgrader{sockets, auth}, Remover: upgrader{sockets, auth}, Metrics: m})
	s := listen(t, api.ServerConfig{
		CertFile: cert, KeyFile: key,
		HeaderTimeout: 100 * time.Millisecond, BodyTimeout: 100 * time.Millisecond, WriteTimeout: 100 * time.Millisecond,
	}, h, m, nil)
	t.Cleanup(func() { _ = sockets.Close(context.Background()) })
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, HandshakeTimeout: patience}
	url := "wss://" + s.Addr().String() + "/ws"
	if _, resp, err := d.Dial(url, nil); err == nil || resp.StatusCode != 401 {
		t.Fatalf("without credentials: %v, want 401", resp)
	}
	header := http.Header{}
	(&http.Request{Header: header}).SetBasicAuth("c1", key1)
	c, _, err := d.Dial(url, header)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, hello, err := c.ReadMessage()
	if err != nil || !bytes.HasPrefix(hello, []byte("\xa5hello\x82")) {
		t.Fatalf("hello %q, %v", hello, err)
	}
	pong := make(chan struct{})
	c.SetPongHandler(func(string) error { close(pong); return nil })
	ended := make(chan error, 1)
	go func() {
		_, _, err := c.ReadMessage()
		ended <- err
	}()
	timer := time.NewTimer(500 * time.Millisecond) // beyond all timeouts of requests
	defer timer.Stop()
	select {
	case err := <-ended:
		t.Fatalf("the connection ended with the timeouts of its request: %v", err)
	case <-timer.C:
	}
	if err := c.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	<-pong

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, _ := http.NewRequest("POST", "https://"+s.Addr().String()+"/unregister", strings.NewReader(`{"clientID":"c1"}`))
	req.SetBasicAuth("c1", key1)
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("unregister: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	select {
	case <-ended:
	case <-time.After(time.Second):
		t.Error("the connection outlives its client by more than 1 s")
	}
}
