package endpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/client"
	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/service/rtc/channel"
)

// Backend carries an endpoint's signalling to the server. A client.Conn is one.
type Backend interface {
	SendDescription(sessionID string, d client.SDP) error
	SendCandidate(sessionID string, c client.ICECandidate) error
}

// Config describes an endpoint.
type Config struct {
	Session  string
	Backend  Backend
	Receiver *media.Receiver // takes what comes
	// ChannelSignalling sends descriptions over the data channel once it is open.
	ChannelSignalling bool
}

// An Endpoint is an end user. Its methods are safe for concurrent use.
type Endpoint struct {
	cfg Config
	pc  *webrtc.PeerConnection
	dc  *webrtc.DataChannel

	opened chan struct{} // closed once the data channel is open
	failed chan struct{} // closed once the connection is lost
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	answers chan string // to our offer
	locks   chan bool   // answers to lock requests
	signals chan client.Event

	negotiation sync.Mutex // one exchange at a time

	early     []webrtc.ICECandidateInit // the signalling goroutine's, until there is a description
	described chan struct{}             // closed once there is one

	mu    sync.Mutex
	fault error // the first that nobody was returned
}

// signalQueue is how many messages of the server wait for an endpoint.
const signalQueue = 256

// New makes an endpoint that is not connected. It has to be closed.
func New(api *API, cfg Config) (*Endpoint, error) {
	pc, err := api.api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{api.certificate}})
	if err != nil {
		return nil, fmt.Errorf("make peer connection: %w", err)
	}
	e := &Endpoint{
		cfg: cfg, pc: pc,
		opened: make(chan struct{}), failed: make(chan struct{}), described: make(chan struct{}),
		answers: make(chan string, 4), locks: make(chan bool, 16), signals: make(chan client.Event, signalQueue),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if e.dc, err = pc.CreateDataChannel("calls-dc", nil); err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("make data channel: %w", err)
	}
	e.dc.OnOpen(func() { close(e.opened) })
	e.dc.OnMessage(e.channelMessage)
	pc.OnTrack(e.track)
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			return
		}
		if err := cfg.Backend.SendCandidate(cfg.Session, client.ICECandidate(c.ToJSON())); err != nil {
			e.faulty(err)
		}
	})
	var once sync.Once
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateFailed || s == webrtc.PeerConnectionStateClosed {
			once.Do(func() { close(e.failed) })
		}
	})
	e.wg.Go(e.signalling)
	return e, nil
}

// Failed returns a channel that is closed when the connection is lost or closed.
func (e *Endpoint) Failed() <-chan struct{} { return e.failed }

// Err returns the first thing that went wrong beside what methods returned.
func (e *Endpoint) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fault
}

func (e *Endpoint) faulty(err error) {
	if e.ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault == nil {
		e.fault = err
	}
}

// Connect makes the first exchange and waits for the open data channel.
func (e *Endpoint) Connect(ctx context.Context) error {
	if err := e.offer(ctx); err != nil {
		return err
	}
	nudge := time.NewTimer(firstNudge)
	defer nudge.Stop()
	for n := 1; ; n++ {
		select {
		case <-e.opened:
			return nil
		case <-nudge.C:
			if n <= nudges && e.pc.ICEConnectionState() == webrtc.ICEConnectionStateChecking {
				e.nudge(n)
				nudge.Reset(firstNudge << (2 * n))
			}
		case <-e.failed:
			return errors.New("connection failed before the data channel opened")
		case <-ctx.Done():
			return fmt.Errorf("data channel did not open: %w", context.Cause(ctx))
		}
	}
}

// When an endpoint that is connecting is nudged: after 5, 25 and 105 ms.
const (
	firstNudge = 5 * time.Millisecond
	nudges     = 3
)

// nudge makes pion look at its checks. It would nominate a pair that answered only with the next tick
// of its timer of 200 ms, which would be all that a join takes on a quick network. A new candidate
// makes it look at once; one of passive TCP is paired with nothing by an endpoint that has no TCP.
func (e *Endpoint) nudge(n int) {
	e.candidate(webrtc.ICECandidateInit{
		Candidate: fmt.Sprintf("candidate:nudge 1 tcp 1 127.0.0.1 %d typ host tcptype passive", n),
	})
}

// offer makes one exchange of ours.
func (e *Endpoint) offer(ctx context.Context) error {
	e.negotiation.Lock()
	defer e.negotiation.Unlock()
	offer, err := e.pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("make offer: %w", err)
	}
	if err := e.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("set offer: %w", err)
	}
	if err := e.describe(offer); err != nil {
		return fmt.Errorf("send offer: %w", err)
	}
	select {
	case answer := <-e.answers:
		if err := e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
			return fmt.Errorf("set answer: %w", err)
		}
		e.hasDescription()
		return nil
	case <-e.failed:
		return errors.New("connection failed while waiting for an answer")
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
}

// hasDescription says that candidates can be added. The caller holds negotiation.
func (e *Endpoint) hasDescription() {
	select {
	case <-e.described:
	default:
		close(e.described)
	}
}

// lockAgain is how long to wait before asking again for a lock that was refused.
const lockAgain = 50 * time.Millisecond

// locked calls f while the endpoint holds the signalling lock.
func (e *Endpoint) locked(ctx context.Context, f func() error) error {
	for granted := false; !granted; {
		if err := e.dc.Send(channel.AppendLockRequest(nil)); err != nil {
			return fmt.Errorf("ask for the lock: %w", err)
		}
		select {
		case granted = <-e.locks:
		case <-e.failed:
			return errors.New("connection failed while waiting for the lock")
		case <-ctx.Done():
			return fmt.Errorf("no answer to a lock request: %w", context.Cause(ctx))
		}
		if granted {
			break
		}
		timer := time.NewTimer(lockAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("lock was not granted: %w", context.Cause(ctx))
		}
	}
	err := f()
	if unlockErr := e.dc.Send(channel.AppendUnlock(nil)); err == nil && unlockErr != nil {
		return fmt.Errorf("give the lock back: %w", unlockErr)
	}
	return err
}

// describe sends a description the way this endpoint signals.
func (e *Endpoint) describe(d webrtc.SessionDescription) error {
	s := client.SDP{Type: d.Type.String(), SDP: d.SDP}
	if e.cfg.ChannelSignalling {
		select {
		case <-e.opened:
			b, err := packed(s)
			if err != nil {
				return err
			}
			return e.dc.Send(b)
		default:
		}
	}
	return e.cfg.Backend.SendDescription(e.cfg.Session, s)
}

// Signal takes a description or candidate that the server sent. It does not block.
func (e *Endpoint) Signal(ev client.Event) {
	select {
	case e.signals <- ev:
	default:
		e.faulty(errors.New("the server sends messages faster than they can be handled"))
	}
}

// signalling handles what the server says until the endpoint is closed.
func (e *Endpoint) signalling() {
	described := e.described
	for {
		select {
		case ev := <-e.signals:
			if err := e.signal(ev); err != nil {
				e.faulty(err)
			}
		case <-described:
			described = nil
			for _, c := range e.early {
				e.candidate(c)
			}
			e.early = nil
		case <-e.ctx.Done():
			return
		}
	}
}

func (e *Endpoint) signal(ev client.Event) error {
	switch ev := ev.(type) {
	case client.Candidate:
		c, err := ev.Parse()
		if err != nil {
			return err
		}
		// Of the server's sections only the first carries the transport.
		init := webrtc.ICECandidateInit{Candidate: c.Candidate}
		select {
		case <-e.described:
			e.candidate(init)
		default:
			if len(e.early) < signalQueue {
				e.early = append(e.early, init)
			}
		}
		return nil
	case client.Description:
		d, err := ev.Parse()
		if err != nil {
			return err
		}
		if d.Type == "answer" {
			select {
			case e.answers <- d.SDP:
			default: // nobody waits for so many
			}
			return nil
		}
		return e.answer(d.SDP)
	}
	return nil
}

func (e *Endpoint) candidate(c webrtc.ICECandidateInit) {
	if err := e.pc.AddICECandidate(c); err != nil {
		e.faulty(fmt.Errorf("add candidate: %w", err))
	}
}

// answer takes an offer of the server.
func (e *Endpoint) answer(offer string) error {
	e.negotiation.Lock()
	defer e.negotiation.Unlock()
	if e.ctx.Err() != nil {
		return nil
	}
	if err := e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return fmt.Errorf("set offer of the server: %w", err)
	}
	e.hasDescription()
	answer, err := e.pc.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("make answer: %w", err)
	}
	if err := e.pc.SetLocalDescription(answer); err != nil {
		return fmt.Errorf("set answer: %w", err)
	}
	return e.describe(answer)
}

// Close ends the connection and waits for all that belongs to the endpoint.
func (e *Endpoint) Close() {
	e.mu.Lock()
	e.cancel()
	e.mu.Unlock()
	_ = e.pc.GracefulClose()
	e.wg.Wait()
}
