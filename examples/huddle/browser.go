package main

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"rtcd/client"
)

const (
	maxBrowserMessage = 256 << 10 // a description of a full room is far smaller
	messagesPerSecond = 50
	messageBurst      = 200
	pingEvery         = 15 * time.Second
	silence           = 40 * time.Second
	writeTimeout      = 10 * time.Second
)

//go:embed page
var page embed.FS

// A server serves the page and its WebSocket.
type server struct {
	hub      *hub
	files    http.Handler
	upgrader websocket.Upgrader // which checks that the page is our own (Origin)
	browsers sync.WaitGroup
}

func newServer(h *hub) *server {
	root, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	return &server{
		hub: h, files: http.FileServerFS(root),
		upgrader: websocket.Upgrader{HandshakeTimeout: writeTimeout},
	}
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-cache")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case r.URL.Path == "/ws":
		s.serveBrowser(w, r)
	default:
		s.files.ServeHTTP(w, r)
	}
}

var roomName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// checkName returns a name that can be shown, or an error for people.
func checkName(name string) (string, error) {
	name = strings.Join(strings.Fields(strings.ToValidUTF8(name, "")), " ")
	n := 0
	for _, r := range name {
		if !unicode.IsGraphic(r) {
			return "", refusal("The name has characters that cannot be shown.")
		}
		n++
	}
	if n == 0 || n > maxName {
		return "", refusal(fmt.Sprintf("A name has 1 to %d characters.", maxName))
	}
	return name, nil
}

// serveBrowser serves one browser for as long as its WebSocket lives.
func (s *server) serveBrowser(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	room := query.Get("room")
	name, err := checkName(query.Get("name"))
	if !roomName.MatchString(room) {
		err = refusal("The room's name is made of 1 to 32 small letters, digits and hyphens.")
	}
	s.browsers.Add(1) // before the upgrade: http.Server forgets the connection there
	defer s.browsers.Done()
	ws, uerr := s.upgrader.Upgrade(w, r, nil)
	if uerr != nil {
		return // has been answered
	}
	defer func() { _ = ws.Close() }()
	l := &link{cut: func() { _ = ws.Close() }, done: make(chan struct{})}
	defer close(l.done)
	p := s.hub.resume(query.Get("token"), l)
	if p == nil && err == nil {
		p, err = s.hub.enter(visitor{room: room, name: name, av1: query.Get("av1") == "1"}, l)
	}
	if p == nil {
		_ = ws.SetWriteDeadline(time.Now().Add(writeTimeout))
		_ = ws.WriteJSON(notice{Type: "refused", Text: err.Error()}) // who cannot hear it is gone anyway
		return
	}
	var writer sync.WaitGroup
	read := make(chan struct{})
	writer.Go(func() {
		write(ws, p, read)
		_ = ws.Close() // ends the reading, too
	})
	lost := s.read(ws, p)
	close(read)
	writer.Wait()
	s.hub.detach(p, l, lost)
}

// write sends what is queued until the browser is gone or given up.
func write(ws *websocket.Conn, p *participant, read <-chan struct{}) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	send := func(v any) bool {
		_ = ws.SetWriteDeadline(time.Now().Add(writeTimeout)) // only sets a field
		return ws.WriteJSON(v) == nil
	}
	for {
		select {
		case v := <-p.out:
			if !send(v) {
				return
			}
		case <-ping.C:
			if ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)) != nil {
				return
			}
		case <-read:
			return
		case <-p.gone:
			for len(p.out) > 0 {
				if !send(<-p.out) {
					return
				}
			}
			return
		}
	}
}

// read handles what the browser says until it is gone, breaks the rules or floods. It reports
// whether the browser was lost without a word, and so may come back.
func (s *server) read(ws *websocket.Conn, p *participant) (lost bool) {
	alive := func() { _ = ws.SetReadDeadline(time.Now().Add(silence)) } // fails only on a closed socket
	alive()
	ws.SetReadLimit(maxBrowserMessage)
	ws.SetPongHandler(func(string) error { alive(); return nil })
	limit := rate.NewLimiter(messagesPerSecond, messageBurst)
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return !errors.Is(err, websocket.ErrReadLimit) && !websocket.IsCloseError(err,
				websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived)
		}
		if !limit.Allow() {
			s.hub.log.Info("browser dropped", "session", p.id, "err", "flood")
			return false
		}
		alive()
		if err := s.handle(p, data); err != nil {
			s.hub.log.Info("browser dropped", "session", p.id, "err", err)
			return false
		}
	}
}

// handle passes one message of a browser on.
func (s *server) handle(p *participant, data []byte) error {
	var m struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("message of the browser: %w", err)
	}
	signals := map[string]client.SignalType{"sdp": client.SignalSDP, "ice": client.SignalICE}
	switch m.Type {
	case "sdp", "ice":
		return s.hub.rtcd.SendSignal(p.id, signals[m.Type], m.Data)
	case "mute", "unmute":
		return s.hub.setMuted(p, m.Type == "mute")
	case "video-on", "video-off", "screen-on", "screen-off":
		return s.handleVideo(p, m.Type, m.Data)
	case "layers":
		return s.hub.setLayers(p, m.Data)
	}
	return fmt.Errorf("message of the browser: type %.20q", m.Type)
}
