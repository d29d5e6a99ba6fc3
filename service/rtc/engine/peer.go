package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/netio"
)

// srtpProfiles in our order: we are the DTLS server and choose (RFC 7714, RFC 3711).
var srtpProfiles = []dtls.SRTPProtectionProfile{
	dtls.SRTP_AEAD_AES_128_GCM,
	dtls.SRTP_AEAD_AES_256_GCM,
	dtls.SRTP_AES128_CM_HMAC_SHA1_80,
}

// gatherTime bounds the wait for candidates that need nobody's answer.
const gatherTime = 200 * time.Millisecond

// restartTime bounds the wait for candidates before an offer that may restart ICE.
const restartTime = time.Second

// ErrMismatch: an answer does not belong to the offer it is applied to.
var ErrMismatch = errors.New("answer does not match the offer")

// errNoMID: BUNDLE needs one (RFC 9143 section 7.2).
var errNoMID = errors.New("section without mid")

// errGathering: the offer came while candidates for the one before were not known yet.
var errGathering = errors.New("still gathering candidates")

// Peer is the peer connection of one session. It is owned by the session's loop; only Keys and
// Path may be called from elsewhere.
//
// pion cannot roll an offer back. So an offer is not applied when it is made but together with
// its answer, and forgetting it is all that a roll-back takes.
type Peer struct {
	*webrtc.PeerConnection

	api     *webrtc.API
	mux     *netio.Mux
	mapping mapping
	tap     *keyTap
	lite    bool

	candidates int // of the endpoint that a description may bring

	offer   *webrtc.SessionDescription // made, and not yet answered
	leaving []*webrtc.RTPTransceiver   // freed, but the endpoint does not know yet
	free    []*webrtc.RTPTransceiver   // sections made by us that send nothing
}

// Keys returns the SRTP keys once DTLS is connected.
func (p *Peer) Keys() (forward.Keys, error) { return p.tap.keys() }

// Path returns the path of the selected candidate pair.
func (p *Peer) Path() (netio.Path, error) {
	pair, err := p.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil {
		return netio.Path{}, fmt.Errorf("selected candidate pair: %w", err)
	}
	if pair == nil {
		return netio.Path{}, errors.New("no selected candidate pair")
	}
	local, err := addrPort(pair.Local)
	if err != nil {
		return netio.Path{}, err
	}
	remote, err := addrPort(pair.Remote)
	if err != nil {
		return netio.Path{}, err
	}
	return p.mux.Path(local, remote, pair.Local.Protocol == webrtc.ICEProtocolTCP)
}

func addrPort(c *webrtc.ICECandidate) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(c.Address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address of candidate: %w", err)
	}
	return netip.AddrPortFrom(addr.Unmap(), c.Port), nil
}

// OnPairChange calls f whenever ICE selects a pair.
func (p *Peer) OnPairChange(f func()) {
	p.SCTP().Transport().ICETransport().OnSelectedCandidatePairChange(
		func(*webrtc.ICECandidatePair) { f() })
}

// CandidateText returns a local candidate as endpoints are told it.
func (p *Peer) CandidateText(c webrtc.ICECandidateInit) string {
	return p.mapping.candidate(c.Candidate)
}

// AcceptOffer applies an offer of the endpoint and returns our answer. An offer of ours that is
// still open is forgotten.
func (p *Peer) AcceptOffer(sdp string) (string, error) {
	p.offer = nil
	sdp, err := bound(sdp, p.candidates)
	if err != nil {
		return "", err
	}
	offer := webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}
	parsed, err := offer.Unmarshal()
	if err != nil {
		return "", fmt.Errorf("parse offer: %w", err)
	}
	// pion finds this only after it has made the offer its own, and then cannot answer it.
	for i, section := range parsed.MediaDescriptions {
		if mid, _ := section.Attribute("mid"); mid == "" {
			return "", fmt.Errorf("section %d of the offer: %w", i, errNoMID)
		}
	}
	// An offer may restart ICE, and the agent must not be gathering then: it reads what a restart
	// replaces.
	if p.ICEGatheringState() == webrtc.ICEGatheringStateGathering {
		select {
		case <-webrtc.GatheringCompletePromise(p.PeerConnection):
		case <-time.After(restartTime):
			return "", errGathering
		}
	}
	if err := p.SetRemoteDescription(offer); err != nil {
		return "", fmt.Errorf("set remote description: %w", err)
	}
	answer, err := p.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("create answer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(p.PeerConnection)
	if err := p.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("set local description: %w", err)
	}
	if p.lite {
		// Our candidates are known in no time, there is nobody to ask. In the answer they let the
		// endpoint's first checks go out at once; one that is told later may wait a round.
		select {
		case <-gathered:
			answer = *p.LocalDescription()
		case <-time.After(gatherTime):
		}
	}
	return p.mapping.description(answer.SDP), nil
}

// MakeOffer returns an offer of everything as it is now.
func (p *Peer) MakeOffer() (string, error) {
	offer, err := p.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("create offer: %w", err)
	}
	p.offer = &offer
	return p.mapping.description(offer.SDP), nil
}

// ForgetOffer rolls our open offer back.
func (p *Peer) ForgetOffer() { p.offer = nil }

// ApplyAnswer applies the endpoint's answer to the offer that is open.
func (p *Peer) ApplyAnswer(sdp string) error {
	if p.offer == nil {
		return ErrMismatch
	}
	offer := *p.offer
	p.offer = nil
	sdp, err := bound(sdp, p.candidates)
	if err != nil {
		return err
	}
	answer := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}
	if err := answers(offer, answer); err != nil {
		return err
	}
	if err := p.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("set local description: %w", err)
	}
	if err := p.SetRemoteDescription(answer); err != nil {
		return fmt.Errorf("set remote description: %w", err)
	}
	p.free = append(p.free, p.leaving...)
	p.leaving = nil
	return nil
}

// answers checks that the answer has the sections of the offer (RFC 3264 section 6).
func answers(offer, answer webrtc.SessionDescription) error {
	o, err := offer.Unmarshal()
	if err != nil {
		return fmt.Errorf("parse offer: %w", err)
	}
	a, err := answer.Unmarshal()
	if err != nil {
		return fmt.Errorf("parse answer: %w", err)
	}
	if len(o.MediaDescriptions) != len(a.MediaDescriptions) {
		return ErrMismatch
	}
	for i, section := range a.MediaDescriptions {
		theirs, _ := section.Attribute("mid")
		ours, _ := o.MediaDescriptions[i].Attribute("mid")
		if theirs != ours || section.MediaName.Media != o.MediaDescriptions[i].MediaName.Media {
			return ErrMismatch
		}
	}
	return nil
}

// AddTrack puts a track into the next offer: in a section of ours that sends nothing, or in a new
// one.
func (p *Peer) AddTrack(track webrtc.TrackLocal) (*webrtc.RTPTransceiver, error) {
	for i, t := range p.free {
		if t.Kind() != track.Kind() || t.Sender() != nil {
			continue
		}
		sender, err := p.api.NewRTPSender(track, p.SCTP().Transport())
		if err != nil {
			return nil, fmt.Errorf("make sender: %w", err)
		}
		if err := t.SetSender(sender, track); err != nil {
			return nil, fmt.Errorf("reuse section %s: %w", t.Mid(), err)
		}
		p.free = slices.Delete(p.free, i, i+1)
		return t, nil
	}
	t, err := p.AddTransceiverFromTrack(track)
	if err != nil {
		return nil, fmt.Errorf("add section: %w", err)
	}
	return t, nil
}

// RemoveTrack takes the track of a section out of the next offer. When that has been answered,
// AddTrack may use the section again.
func (p *Peer) RemoveTrack(t *webrtc.RTPTransceiver) error {
	sender := t.Sender()
	if sender == nil {
		return nil
	}
	if err := p.PeerConnection.RemoveTrack(sender); err != nil {
		return fmt.Errorf("remove track of section %s: %w", t.Mid(), err)
	}
	p.leaving = append(p.leaving, t)
	return nil
}

// Recover brings the peer connection back to stable after an offer that did not apply: the offer
// is answered, as far as pion understood it, but the answer goes nowhere.
func (p *Peer) Recover() error {
	if p.SignalingState() == webrtc.SignalingStateStable {
		return nil
	}
	answer, err := p.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("create answer: %w", err)
	}
	if err := p.SetLocalDescription(answer); err != nil {
		return fmt.Errorf("set local description: %w", err)
	}
	return nil
}
