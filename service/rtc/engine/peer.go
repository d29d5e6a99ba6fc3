package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/sdp/v3"
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
	muxes   []*udpMux
	tcp     ice.TCPMux // nil: no TCP
	aliases *aliases
	link    *link // nil before the first restart of ours
	mapping mapping
	tap     *keyTap
	lite    bool

	sendsOnly bool // the endpoint is to send nothing

	selected atomic.Pointer[webrtc.ICECandidatePair] // as told last; nil: never yet
	onCheck  atomic.Pointer[func(Check) bool]

	reselect atomic.Bool // the agent has selected nothing, without the endpoint's knowing

	ufrag     string // of the agent, when it made its latest answer
	restarted bool   // by the latest offer

	candidates int // of the endpoint that a description may bring

	media    media
	endpoint *endpoint
	agreed   agreement // of the descriptions in force

	offer   *offer                   // made, and not yet answered
	leaving []*webrtc.RTPTransceiver // freed, but the endpoint does not know yet
	free    []*webrtc.RTPTransceiver // sections made by us that send nothing
}

// offer is an offer of ours.
type offer struct {
	pion webrtc.SessionDescription // as pion made it
	ours *sdp.SessionDescription   // as the endpoint got it, but for credentials
}

// Keys returns the SRTP keys once DTLS is connected.
func (p *Peer) Keys() (forward.Keys, error) { return p.tap.keys() }

// Path returns the path of the selected candidate pair.
func (p *Peer) Path() (netio.Path, error) {
	pair := p.selected.Load()
	if pair == nil { // pion makes its answer by way of text, so it is not asked each time
		var err error
		if pair, err = p.SCTP().Transport().ICETransport().GetSelectedCandidatePair(); err != nil {
			return netio.Path{}, fmt.Errorf("selected candidate pair: %w", err)
		}
		if pair == nil {
			return netio.Path{}, errors.New("no selected candidate pair")
		}
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

// OnPairChange calls f whenever ICE selects a pair, which Path then tells.
func (p *Peer) OnPairChange(f func()) {
	p.SCTP().Transport().ICETransport().OnSelectedCandidatePairChange(
		func(pair *webrtc.ICECandidatePair) {
			p.selected.Store(pair)
			p.reselect.Store(false)
			f()
		})
}

// FreeTCP gives up the candidates of TCP, which cost what those of UDP cost, and ends the connections
// to them. A lite agent may free candidates that were not selected (RFC 8445 section 8.3.2); a
// restart of ICE brings them back.
func (p *Peer) FreeTCP() error {
	if p.tcp == nil {
		return nil
	}
	params, err := p.SCTP().Transport().ICETransport().GetLocalParameters()
	if err != nil {
		return fmt.Errorf("parameters of ice: %w", err)
	}
	p.tcp.RemoveConnByUfrag(params.UsernameFragment)
	return nil
}

// CandidateText returns a local candidate as endpoints are told it.
func (p *Peer) CandidateText(c webrtc.ICECandidateInit) string {
	return p.dress(p.mapping.candidate(c.Candidate), false)
}

// AcceptOffer applies an offer of the endpoint and returns our answer. An offer of ours that is
// still open is forgotten.
func (p *Peer) AcceptOffer(text string) (string, error) {
	p.offer = nil
	theirs, err := p.parse(text)
	if err != nil {
		return "", fmt.Errorf("parse offer: %w", err)
	}
	// pion finds this only after it has made the offer its own, and then cannot answer it.
	for i, section := range theirs.MediaDescriptions {
		if mid, _ := section.Attribute(sdp.AttrKeyMID); mid == "" {
			return "", fmt.Errorf("section %d of the offer: %w", i, errNoMID)
		}
	}
	shown, err := plain(theirs)
	if err != nil {
		return "", err
	}
	if err := p.awaitGathered(); err != nil { // the offer may restart ICE
		return "", err
	}
	own := p.isRestart(theirs)
	if err := p.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: shown}); err != nil {
		return "", fmt.Errorf("set remote description: %w", err)
	}
	answer, err := p.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("create answer: %w", err)
	}
	ours, err := p.answer(answer.SDP, theirs)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(p.PeerConnection)
	if err := p.agree(theirs, ours, func() error { return p.SetLocalDescription(answer) }); err != nil {
		return "", fmt.Errorf("set local description: %w", err)
	}
	if p.lite {
		// Our candidates are known in no time, there is nobody to ask. In the answer they let the
		// endpoint's first checks go out at once; one that is told later may wait a round.
		select {
		case <-gathered:
			if ours, err = p.answer(p.LocalDescription().SDP, theirs); err != nil {
				return "", err
			}
		case <-time.After(gatherTime):
		}
	}
	p.followAgent(own, ours, theirs)
	return p.text(ours, false)
}

// answer turns pion's answer to an offer of the endpoint into ours.
func (p *Peer) answer(text string, theirs *sdp.SessionDescription) (*sdp.SessionDescription, error) {
	ours, err := p.media.answer(text, theirs)
	if err == nil {
		p.direct(ours)
	}
	return ours, err
}

// addCandidates adds the candidates in a description of pion's to ours, if they are not there already,
// as after the first exchange. Pion puts them into the first section alone.
func addCandidates(ours *sdp.SessionDescription, text string) {
	if len(ours.MediaDescriptions) == 0 {
		return
	}
	first := ours.MediaDescriptions[0]
	for line := range strings.SplitSeq(text, "\r\n") {
		line, ok := strings.CutPrefix(line, "a=")
		if key, value, _ := strings.Cut(line, ":"); ok && (key == "candidate" || key == sdp.AttrKeyEndOfCandidates) {
			if a := (sdp.Attribute{Key: key, Value: value}); !slices.Contains(first.Attributes, a) {
				first.Attributes = append(first.Attributes, a)
			}
		}
	}
}

// parse returns a description of the endpoint, within bounds.
func (p *Peer) parse(text string) (*sdp.SessionDescription, error) {
	text, err := bound(text, p.candidates)
	if err != nil {
		return nil, err
	}
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(text); err != nil {
		return nil, err
	}
	return d, nil
}

// text returns a description of ours as the endpoint is sent it.
func (p *Peer) text(d *sdp.SessionDescription, offer bool) (string, error) {
	b, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("write description: %w", err)
	}
	return p.dress(p.mapping.description(string(b)), offer), nil
}

// agree makes pion apply a pair of descriptions, which binds tracks to what they agree on.
func (p *Peer) agree(theirs, ours *sdp.SessionDescription, apply func() error) error {
	before := p.agreed
	p.agreed = p.media.agreement(theirs, ours)
	if err := apply(); err != nil {
		p.agreed = before
		return err
	}
	for _, m := range theirs.MediaDescriptions {
		p.endpoint.note(m)
	}
	return nil
}

// MakeOffer returns an offer of everything as it is now.
func (p *Peer) MakeOffer() (string, error) {
	made, err := p.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("create offer: %w", err)
	}
	ours, err := p.media.offer(made.SDP, p.agreed, p.endpoint)
	if err != nil {
		return "", err
	}
	p.direct(ours)
	p.offer = &offer{pion: made, ours: ours}
	return p.text(ours, true)
}

// ForgetOffer rolls our open offer back.
func (p *Peer) ForgetOffer() { p.offer = nil }

// ApplyAnswer applies the endpoint's answer to the offer that is open.
func (p *Peer) ApplyAnswer(text string) error {
	if p.offer == nil {
		return ErrMismatch
	}
	made := p.offer
	theirs, err := p.parse(text)
	if err != nil {
		p.offer = nil
		return fmt.Errorf("parse answer: %w", err)
	}
	if !answers(made.ours, theirs) {
		p.offer = nil
		return ErrMismatch
	}
	if p.Restarting() { // and no request has come before the answer
		if err := p.Restart(); err != nil {
			p.offer = nil
			return err
		}
	}
	p.offer = nil
	shown, err := plain(theirs)
	if err != nil {
		return err
	}
	if err := p.SetLocalDescription(made.pion); err != nil {
		return fmt.Errorf("set local description: %w", err)
	}
	answer := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: shown}
	if err := p.agree(theirs, made.ours, func() error { return p.SetRemoteDescription(answer) }); err != nil {
		return fmt.Errorf("set remote description: %w", err)
	}
	p.named(theirs)
	p.free = append(p.free, p.leaving...)
	p.leaving = nil
	return nil
}

// answers reports whether an answer has the sections of the offer (RFC 3264 section 6).
func answers(offer, answer *sdp.SessionDescription) bool {
	return slices.EqualFunc(offer.MediaDescriptions, answer.MediaDescriptions,
		func(ours, theirs *sdp.MediaDescription) bool {
			o, _ := ours.Attribute(sdp.AttrKeyMID)
			t, _ := theirs.Attribute(sdp.AttrKeyMID)
			return o == t && ours.MediaName.Media == theirs.MediaName.Media
		})
}

// AddTrack puts a track into the next offer: in a section of ours that sends nothing, or in a new
// one.
func (p *Peer) AddTrack(local webrtc.TrackLocal) (*webrtc.RTPTransceiver, error) {
	track := &sending{TrackLocal: local, peer: p}
	for i, t := range p.free {
		if t.Kind() != track.Kind() || t.Sender() != nil {
			continue
		}
		sender, err := p.api.NewRTPSender(track, p.SCTP().Transport())
		if err != nil {
			return nil, fmt.Errorf("make sender: %w", err)
		}
		track.section = t
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
	track.section = t
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
