package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"rtcd/service/api/wire"
)

const patience = 15 * time.Second

// TestMain also is the rtcd of the tests that start one.
func TestMain(m *testing.M) {
	if os.Getenv("HUDDLE_TEST_CHILD") != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

// childMain serves a fakeRTCD as the environment says, until SIGTERM.
func childMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch os.Getenv("HUDDLE_TEST_CHILD") {
	case "crash":
		fmt.Fprintln(os.Stderr, "config: something is wrong")
		return 1
	case "deaf": // has to be asked twice
		first := make(chan os.Signal, 2)
		signal.Notify(first, syscall.SIGTERM)
		go func() { <-first; <-first; os.Exit(0) }()
		ctx = context.Background()
	}
	if os.Getenv("RTCD_API_SECURITY_ENABLEADMIN") != "true" || os.Getenv("RTCD_STORE_DATASOURCE") == "" {
		fmt.Fprintln(os.Stderr, "environment is not as it should be")
		return 1
	}
	if syscall.Getpgrp() != os.Getpid() {
		fmt.Fprintln(os.Stderr, "not in a process group of its own")
		return 1
	}
	f := &fakeRTCD{admin: os.Getenv("RTCD_API_SECURITY_ADMINSECRETKEY"), got: make(chan string, 1024)}
	srv := &http.Server{Addr: os.Getenv("RTCD_API_HTTP_LISTENADDRESS"), Handler: f}
	go func() { <-ctx.Done(); _ = srv.Close() }()
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A fakeRTCD is as much of rtcd as huddle needs. With media, each session has a peer connection
// that plays back what it gets.
type fakeRTCD struct {
	admin string
	media bool
	got   chan string // what huddle sent, as text

	mu    sync.Mutex
	id    string
	ws    *websocket.Conn
	peers map[string]*echo
}

func (f *fakeRTCD) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, key, _ := r.BasicAuth()
	switch r.URL.Path {
	case "/version":
		fmt.Fprintln(w, `{"buildVersion":"v1.3.0"}`)
	case "/register":
		var body map[string]string
		if key != f.admin || json.NewDecoder(r.Body).Decode(&body) != nil {
			http.Error(w, `{"error":"authentication failed"}`, http.StatusUnauthorized)
			return
		}
		f.mu.Lock()
		f.id = body["clientID"]
		f.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintln(w, `{"code":"201"}`)
	case "/unregister":
		f.got <- "unregister"
		fmt.Fprintln(w, `{"code":"200"}`)
	case "/ws":
		f.mu.Lock()
		known := f.id != "" && id == f.id
		f.mu.Unlock()
		if !known {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		f.serveWS(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeRTCD) serveWS(w http.ResponseWriter, r *http.Request) {
	var upgrader websocket.Upgrader
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.Close() }()
	f.mu.Lock()
	f.ws, f.peers = ws, make(map[string]*echo)
	f.mu.Unlock()
	defer func() {
		for id := range f.peers {
			f.end(id)
		}
	}()
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		m, err := wire.Decode(data)
		if err != nil {
			f.got <- "undecodable: " + err.Error()
			continue
		}
		switch m.Type {
		case wire.TypeJoin:
			joined := "join " + m.Join.CallID + " " + m.Join.SessionID
			if av1 := m.Join.AV1Support; av1 != nil && *av1 {
				joined += " av1"
			}
			f.got <- joined
			if f.media {
				f.peers[m.Join.SessionID] = newEcho(f, m.Join.SessionID)
			}
		case wire.TypeRTC:
			f.got <- fmt.Sprintf("rtc %s %d %s", m.Signal.SessionID, m.Signal.Type, m.Signal.Data)
			if e := f.peers[m.Signal.SessionID]; e != nil {
				e.signal(m.Signal)
			}
		default:
			f.got <- m.Type + " " + m.SessionID
			f.end(m.SessionID)
		}
	}
}

func (f *fakeRTCD) end(id string) {
	if e := f.peers[id]; e != nil {
		_ = e.pc.GracefulClose()
		delete(f.peers, id)
	}
}

func (f *fakeRTCD) send(data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ws != nil {
		_ = f.ws.WriteMessage(websocket.BinaryMessage, data) // a loss shows in what is missing
	}
}

func (f *fakeRTCD) signal(session string, t wire.SignalType, v any) {
	data, _ := json.Marshal(v)
	f.send(wire.AppendRTC(nil, wire.Signal{SessionID: session, Type: t, Data: data}))
}

// An echo is the server's end of a session: it hands out the lock, and once there is a voice it
// offers it back in a section of its own.
type echo struct {
	f      *fakeRTCD
	id     string
	pc     *webrtc.PeerConnection
	dc     *webrtc.DataChannel
	out    *webrtc.TrackLocalStaticRTP
	refuse int // lock requests to refuse
}

func newEcho(f *fakeRTCD, id string) *echo {
	e := &echo{f: f, id: id, refuse: 2}
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		panic(err)
	}
	e.pc = pc
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			f.signal(id, wire.SignalICE, map[string]any{"type": "candidate", "candidate": c.ToJSON()})
		}
	})
	pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		e.dc = dc
		dc.OnMessage(e.message)
	})
	e.out, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "voice_other_12345678", "other")
	if err != nil {
		panic(err)
	}
	pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := t.ReadRTP()
			if err != nil {
				return
			}
			p.Extension, p.Extensions = false, nil
			_ = e.out.WriteRTP(p)
		}
	})
	return e
}

func (e *echo) message(m webrtc.DataChannelMessage) {
	if m.IsString || len(m.Data) != 1 {
		e.f.got <- fmt.Sprintf("odd message %x", m.Data)
		return
	}
	switch m.Data[0] {
	case 1:
		_ = e.dc.Send([]byte{0xcc, 2})
	case 7:
		answer := []byte{0xcc, 7, 0xc3}
		if e.refuse > 0 {
			e.refuse--
			answer[2] = 0xc2
		} else {
			e.f.got <- "lock " + e.id
		}
		_ = e.dc.Send(answer)
	case 8:
		e.f.got <- "unlock " + e.id
		e.offer()
	}
}

func (e *echo) offer() {
	if len(e.pc.GetSenders()) > 1 {
		return
	}
	if _, err := e.pc.AddTransceiverFromTrack(e.out, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		panic(err)
	}
	offer, err := e.pc.CreateOffer(nil)
	if err == nil {
		err = e.pc.SetLocalDescription(offer)
	}
	if err != nil {
		e.f.got <- "offer: " + err.Error()
		return
	}
	// mid 2 is a voice of "other"
	_ = e.dc.Send(append([]byte{0xcc, 9, 0x81, 0xa1, '2', 0x82, 0xa4}, "type\xa5voice\xa9sender_id\xa5other"...))
	e.f.signal(e.id, wire.SignalSDP, offer)
}

func (e *echo) signal(s wire.Signal) {
	switch s.Type {
	case wire.SignalICE:
		var c webrtc.ICECandidateInit
		if json.Unmarshal(s.Data, &c) == nil {
			_ = e.pc.AddICECandidate(c)
		}
	case wire.SignalSDP:
		var d webrtc.SessionDescription
		if err := json.Unmarshal(s.Data, &d); err != nil {
			e.f.got <- "sdp: " + err.Error()
			return
		}
		err := e.pc.SetRemoteDescription(d)
		if err == nil && d.Type == webrtc.SDPTypeOffer {
			var answer webrtc.SessionDescription
			if answer, err = e.pc.CreateAnswer(nil); err == nil {
				err = e.pc.SetLocalDescription(answer)
				e.f.signal(e.id, wire.SignalSDP, answer)
			}
		}
		if err != nil {
			e.f.got <- "description: " + err.Error()
		}
	}
}

var lastPort = 20_000 + rand.IntN(10_000)

// freeAddr returns a loopback address nobody listens on, another at each call. Its port is below
// those that the system gives to outgoing connections, one of which might take it.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		lastPort++
		l, err := net.Listen("tcp", fmt.Sprint(":", lastPort))
		if err != nil {
			continue
		}
		_ = l.Close()
		return fmt.Sprint("127.0.0.1:", lastPort)
	}
	t.Fatal("no free port")
	return ""
}

func within[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v, ok := <-ch:
		if !ok {
			t.Fatalf("waiting for %s: channel closed", what)
		}
		return v
	case <-time.After(patience):
		t.Fatalf("no %s after %v", what, patience)
	}
	panic("not reached")
}
