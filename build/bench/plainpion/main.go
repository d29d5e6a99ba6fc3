// Command plainpion is a media server of the plainest kind that pion makes: one TrackLocalStaticRTP
// for each track that somebody sends, written to everybody who wants it, with pion's default codecs
// and interceptors and its UDP mux on one port. It is what the benchmark compares with, and nothing
// to run: it trusts everybody.
//
// The rooms are told beforehand, so one offer and one answer are all that a session takes.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"rtcd/build/bench/plainpion/wire"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address of the HTTP interface; media has a port of its own")
	flag.Parse()
	if err := run(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "plainpion:", err)
		os.Exit(1)
	}
}

func run(listen string) error {
	media, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fmt.Errorf("open media socket: %w", err)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	s := &server{
		mux:   ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: media}),
		rooms: make(map[string]*room),
	}
	http.HandleFunc("POST /rooms", s.makeRoom)
	http.HandleFunc("POST /join", s.join)
	http.HandleFunc("GET /stats", s.stats)
	fmt.Println(l.Addr()) // what started this waits for it
	return http.Serve(l, nil)
}

// server has the rooms.
type server struct {
	mux                 ice.UDPMux
	received, forwarded atomic.Uint64 // RTP packets

	mu    sync.Mutex
	rooms map[string]*room
	pcs   []*webrtc.PeerConnection
}

// room is the tracks that are sent in it, fixed when it is made.
type room struct{ tracks []*track }

// track is one that a session sends and all others of the room get.
type track struct {
	session     string
	local       *webrtc.TrackLocalStaticRTP
	subscribers atomic.Int64
	taken       atomic.Bool // the sender has come
	source      atomic.Pointer[source]
}

// source is where a track comes from.
type source struct {
	pc   *webrtc.PeerConnection
	ssrc uint32
}

func (s *server) makeRoom(w http.ResponseWriter, r *http.Request) {
	var req wire.Room
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	made := &room{}
	for i, t := range req.Tracks {
		local, err := webrtc.NewTrackLocalStaticRTP(capability(t.Video), fmt.Sprint("track", i), t.Session)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		made.tracks = append(made.tracks, &track{session: t.Session, local: local})
	}
	s.mu.Lock()
	s.rooms[req.Name] = made
	s.mu.Unlock()
}

func capability(video bool) webrtc.RTPCodecCapability {
	if video {
		return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	}
	return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
}

func (s *server) join(w http.ResponseWriter, r *http.Request) {
	var req wire.Join
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	in := s.rooms[req.Room]
	s.mu.Unlock()
	if in == nil {
		http.Error(w, "no such room", http.StatusNotFound)
		return
	}
	answer, err := s.connect(in, req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(wire.Answer{SDP: answer})
}

// connect makes the peer connection of a session and returns the answer to its offer.
func (s *server) connect(in *room, req wire.Join) (string, error) {
	pc, err := s.newPeerConnection()
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.pcs = append(s.pcs, pc)
	s.mu.Unlock()
	pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for _, t := range in.tracks {
			if t.session == req.Session && t.local.Kind() == remote.Kind() && t.taken.CompareAndSwap(false, true) {
				t.source.Store(&source{pc: pc, ssrc: uint32(remote.SSRC())})
				s.forward(t, remote)
				return
			}
		}
	})
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: req.SDP}); err != nil {
		return "", fmt.Errorf("take the offer: %w", err)
	}
	for _, t := range in.tracks {
		if t.session == req.Session {
			continue
		}
		sender, err := pc.AddTrack(t.local)
		if err != nil {
			return "", fmt.Errorf("add a track: %w", err)
		}
		t.subscribers.Add(1)
		go t.feedback(sender)
	}
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("make an answer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("take the answer: %w", err)
	}
	select {
	case <-gathered:
	case <-time.After(10 * time.Second):
		return "", errors.New("candidates not gathered")
	}
	return pc.LocalDescription().SDP, nil
}

func (s *server) newPeerConnection() (*webrtc.PeerConnection, error) {
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	registry := &interceptor.Registry{}
	if err := webrtc.RegisterDefaultInterceptors(media, registry); err != nil {
		return nil, err
	}
	settings := webrtc.SettingEngine{}
	settings.SetICEUDPMux(s.mux)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry),
		webrtc.WithSettingEngine(settings))
	return api.NewPeerConnection(webrtc.Configuration{})
}

// forward passes on what comes of a track, as pion's own examples do.
func (s *server) forward(t *track, remote *webrtc.TrackRemote) {
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		s.received.Add(1)
		p.Extension, p.Extensions = false, nil
		if err := t.local.WriteRTP(p); err == nil || errors.Is(err, io.ErrClosedPipe) {
			s.forwarded.Add(uint64(t.subscribers.Load()))
		}
	}
}

// feedback lets the interceptors see what a receiver reports, and passes on requests for a keyframe.
func (t *track) feedback(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if _, ok := p.(*rtcp.PictureLossIndication); !ok {
				continue
			}
			if from := t.source.Load(); from != nil {
				_ = from.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: from.ssrc}})
			}
		}
	}
}

func (s *server) stats(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	sessions := len(s.pcs)
	s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(wire.Stats{
		Sessions: sessions, Goroutines: runtime.NumGoroutine(),
		Received: s.received.Load(), Forwarded: s.forwarded.Load(),
	})
}
