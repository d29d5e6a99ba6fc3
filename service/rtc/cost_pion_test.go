package rtc_test

import (
	"encoding/json"
	"net"
	"sync"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
)

// costPion is a server of pion as it comes, which a session's cost is compared with: all codecs, the
// default interceptors, a certificate for each peer connection, one socket under pion's mux.
type costPion struct {
	frames *costFrames
	api    *webrtc.API

	mu    sync.Mutex
	peers map[int]*costPeer // guarded by mu
}

type costPeer struct {
	mu    sync.Mutex
	pc    *webrtc.PeerConnection
	early []webrtc.ICECandidateInit // nil once there is a description
	ready bool
}

func newCostPion(frames *costFrames) (costServer, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	s := webrtc.SettingEngine{}
	s.SetICEUDPMux(ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn}))
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	return &costPion{
		frames: frames, api: webrtc.NewAPI(webrtc.WithSettingEngine(s)), peers: make(map[int]*costPeer),
	}, nil
}

func (s *costPion) join(session int) error {
	pc, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return err
	}
	pc.OnDataChannel(func(*webrtc.DataChannel) {})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers[session] = &costPeer{pc: pc}
	return nil
}

func (s *costPion) signal(session int, kind costKind, text []byte) {
	s.mu.Lock()
	p := s.peers[session]
	s.mu.Unlock()
	if kind == costICE {
		if c, err := wire.ParseCandidate(text); err == nil {
			p.candidate(webrtc.ICECandidateInit{Candidate: c.Candidate})
		}
		return
	}
	go func() {
		if answer, err := p.answer(text); err == nil {
			_ = s.frames.write(costSDP, session, answer)
		}
	}()
}

func (p *costPeer) candidate(c webrtc.ICECandidateInit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		p.early = append(p.early, c)
		return
	}
	_ = p.pc.AddICECandidate(c)
}

// answer returns the answer to an offer, with all candidates.
func (p *costPeer) answer(offer []byte) ([]byte, error) {
	d, err := wire.ParseDescription(offer)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: d.SDP}); err != nil {
		return nil, err
	}
	answer, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return nil, err
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(answer); err != nil {
		return nil, err
	}
	<-gathered
	p.ready = true
	for _, c := range p.early {
		_ = p.pc.AddICECandidate(c)
	}
	p.early = nil
	return json.Marshal(p.pc.LocalDescription())
}
