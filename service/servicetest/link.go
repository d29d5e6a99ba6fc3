package servicetest

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/wire"
)

// patience bounds what has to happen at once.
const patience = 10 * time.Second

// A Link is one WebSocket of a backend.
type Link struct {
	Hello wire.ServerMessage
	// Done is closed when nothing can come any more.
	Done chan struct{}

	b    *Backend
	ws   *websocket.Conn
	tcp  *net.TCPConn
	sent sync.Mutex
}

// Dial opens a link with the backend's key and makes it the one in use. The test closes it.
func (b *Backend) Dial(t testing.TB) *Link {
	t.Helper()
	l, err := b.DialWith(b.Basic())
	if err != nil {
		t.Fatalf("%s: %v", b.ID, err)
	}
	t.Cleanup(l.Close)
	b.Use(l)
	return l
}

// DialWith opens a link with any Authorization header and waits for its hello. The caller closes it.
func (b *Backend) DialWith(authorization string) (*Link, error) {
	l := &Link{Done: make(chan struct{}), b: b}
	dialer := websocket.Dialer{
		HandshakeTimeout: patience,
		NetDial: func(network, addr string) (net.Conn, error) {
			c, err := net.DialTimeout(network, addr, patience)
			if err == nil {
				l.tcp = c.(*net.TCPConn)
			}
			return c, err
		},
	}
	ws, resp, err := dialer.Dial("ws://"+b.Addr+"/ws", http.Header{"Authorization": {authorization}})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("dial: %w: status %d", err, resp.StatusCode)
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	l.ws = ws
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	if l.Hello, err = l.read(); err != nil || l.Hello.Type != "hello" {
		_ = ws.Close()
		return nil, fmt.Errorf("dial: first message is %q: %w", l.Hello.Type, err)
	}
	_ = ws.SetReadDeadline(time.Time{})
	ws.SetPingHandler(func(payload string) error {
		// That no pong can be sent any more is no reason to leave unread what has arrived.
		_ = ws.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(patience))
		return nil
	})
	go l.run()
	return l, nil
}

func (l *Link) read() (wire.ServerMessage, error) {
	_, data, err := l.ws.ReadMessage()
	if err != nil {
		return wire.ServerMessage{}, err
	}
	return wire.DecodeServer(data)
}

func (l *Link) run() {
	defer func() {
		l.b.mu.Lock()
		close(l.Done)
		l.b.notifyLocked()
		l.b.mu.Unlock()
	}()
	for {
		m, err := l.read()
		if err != nil {
			return
		}
		l.b.received(l, m)
	}
}

// Send sends a message, whatever it holds. What cannot be sent is lost, as on any connection that
// breaks.
func (l *Link) Send(data []byte) {
	l.sent.Lock()
	defer l.sent.Unlock()
	_ = l.ws.SetWriteDeadline(time.Now().Add(patience))
	_ = l.ws.WriteMessage(websocket.BinaryMessage, data)
}

// Close ends the link and waits for its goroutine.
func (l *Link) Close() {
	_ = l.ws.Close()
	<-l.Done
}

// Finish ends our direction: what is under way to us still arrives, then the server closes.
func (l *Link) Finish() {
	_ = l.tcp.CloseWrite()
	<-l.Done
}
