package rtc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
	"golang.org/x/time/rate"

	"rtcd/service/metrics"
	"rtcd/service/rtc/engine"
)

// LimitProbes is how many probes run at a time.
const LimitProbes metrics.Limit = "probes"

// Bounds of probes.
const (
	maxProbes      = 32
	probeTime      = 20 * time.Second // of one, from its offer
	probeGather    = time.Second      // for its candidates
	maxProbeOffer  = 8 << 10          // bytes of SDP
	maxProbeEcho   = 64               // bytes of a message
	maxProbeEchoes = 400
	probeEchoRate  = 100 // messages per second; those beyond are lost
)

// A ProbeTransport is what a probe is to find a way over.
type ProbeTransport string

// Transports of a probe.
const (
	ProbeUDP ProbeTransport = "udp"
	ProbeTCP ProbeTransport = "tcp"
)

// Errors of Probe.
var (
	ErrProbeOffer     = errors.New("offer of a probe must be of one data channel section and no more than 8 KiB")
	ErrProbeTransport = errors.New("no candidate of that transport")
	ErrTooManyProbes  = errors.New("too many probes at a time")
)

// A ProbeOutcome is what the server saw of a probe whose data channel has opened.
type ProbeOutcome struct {
	Remote netip.AddrPort // of the endpoint, as its packets come
	Took   time.Duration  // from the offer
}

// probes are the probes that run. The zero value is ready for use.
type probes struct {
	running sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	cancel map[*probe]context.CancelFunc
	closed bool
}

// A probe is a peer that belongs to no call and no client: it finds out whether there is a way for
// ICE and DTLS, and sends back what it gets, so that the endpoint can time it.
type probe struct {
	peer      *engine.Peer
	transport ProbeTransport
	begun     time.Time
	opened    chan *webrtc.DataChannel // the first one to open
	over      chan struct{}            // closed when the transport has failed or is closed
	fail      sync.Once
	candidate candidates
}

// candidates collects the candidates of one transport, as endpoints are told them.
type candidates struct {
	transport ProbeTransport
	done      chan struct{} // closed when there will be no more

	mu   sync.Mutex
	list []string
}

// Probe answers the offer of an endpoint that wants to know whether a transport leads to this server.
// The answer has candidates of that transport alone, and the endpoint's are not looked at: it has to
// send the first check. If and when its data channel opens seen is called, once, from another
// goroutine. The probe ends by itself.
func (s *Server) Probe(ctx context.Context, transport ProbeTransport, offer string, seen func(ProbeOutcome)) (answer string, err error) {
	offer, err = probeOffer(offer)
	if err != nil {
		return "", err
	}
	p := &probe{
		transport: transport, begun: time.Now(), opened: make(chan *webrtc.DataChannel, 1), over: make(chan struct{}),
		candidate: candidates{transport: transport, done: make(chan struct{})},
	}
	life, err := s.probes.enter(p)
	if err != nil {
		if errors.Is(err, ErrTooManyProbes) {
			s.cfg.Metrics.LimitHit(LimitProbes)
		}
		return "", err
	}
	defer func() {
		if err != nil {
			s.probes.leave(p)
		}
	}()
	if err := p.connect(ctx, s.engine); err != nil {
		return "", err
	}
	answer, err = p.answer(ctx, offer)
	if err != nil {
		return "", errors.Join(err, p.peer.GracefulClose())
	}
	s.probes.running.Go(func() {
		defer s.probes.leave(p)
		p.run(life, seen)
		if err := p.peer.GracefulClose(); err != nil {
			s.log.Debug("close probe", "err", err)
		}
	})
	return answer, nil
}

// enter takes one of the places. What it returns ends with the probe's time, or the server.
func (all *probes) enter(p *probe) (context.Context, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	switch {
	case all.closed:
		return nil, ErrDraining
	case len(all.cancel) >= maxProbes:
		return nil, ErrTooManyProbes
	}
	if all.cancel == nil {
		all.cancel = make(map[*probe]context.CancelFunc)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	all.cancel[p] = cancel
	all.running.Add(1)
	return ctx, nil
}

// leave gives the place back.
func (all *probes) leave(p *probe) {
	all.mu.Lock()
	cancel := all.cancel[p]
	delete(all.cancel, p)
	all.mu.Unlock()
	cancel()
	all.running.Done()
}

// close ends all probes and waits for them.
func (all *probes) close() {
	all.mu.Lock()
	all.closed = true
	for _, cancel := range all.cancel {
		cancel()
	}
	all.mu.Unlock()
	all.running.Wait()
}

// probeOffer checks an offer and takes the candidates out: with none of the endpoint's we send no
// check of our own, which could find a way over the other transport.
func probeOffer(sdp string) (string, error) {
	if len(sdp) > maxProbeOffer {
		return "", ErrProbeOffer
	}
	var b strings.Builder
	sections := 0
	for line := range strings.Lines(sdp) {
		if strings.HasPrefix(line, "\r") { // which pion skips, and reads what follows
			return "", ErrProbeOffer
		}
		if strings.HasPrefix(line, "m=") {
			if sections++; !strings.HasPrefix(line, "m=application ") {
				return "", ErrProbeOffer
			}
		}
		if !strings.HasPrefix(line, "a=candidate:") && !strings.HasPrefix(line, "a=end-of-candidates") {
			b.WriteString(line)
		}
	}
	if sections != 1 {
		return "", ErrProbeOffer
	}
	return b.String(), nil
}

// connect makes the peer connection.
func (p *probe) connect(ctx context.Context, e *engine.Engine) error {
	cert, err := engine.NewCertificate()
	if err != nil {
		return err
	}
	if p.peer, err = e.NewPeer(ctx, cert); err != nil {
		return err
	}
	p.peer.ReceiveNothing()
	p.peer.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			p.candidate.end()
			return
		}
		p.candidate.add(p.peer.CandidateText(c.ToJSON()))
	})
	p.peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateFailed || state == webrtc.PeerConnectionStateClosed {
			p.fail.Do(func() { close(p.over) })
		}
	})
	p.peer.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnOpen(func() {
			select {
			case p.opened <- dc:
			default: // one is enough
			}
		})
	})
	return nil
}

func (c *candidates) add(text string) {
	f := strings.Fields(text)
	if len(f) < 8 || !strings.EqualFold(f[2], string(c.transport)) {
		return
	}
	text = "a=" + text
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.list, text) {
		c.list = append(c.list, text)
	}
}

func (c *candidates) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
	default:
		close(c.done)
	}
}

func (c *candidates) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// answer applies the offer and returns an answer with the candidates of the transport.
func (p *probe) answer(ctx context.Context, offer string) (string, error) {
	text, err := p.peer.AcceptOffer(offer)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProbeOffer, err)
	}
	timer := time.NewTimer(probeGather)
	defer timer.Stop()
	select {
	case <-p.candidate.done:
	case <-timer.C:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	list := p.candidate.all()
	if len(list) == 0 {
		return "", ErrProbeTransport
	}
	// There is one section, so what is added at the end belongs to it.
	if text, err = probeOffer(text); err != nil {
		return "", err
	}
	return text + strings.Join(append(list, "a=end-of-candidates"), "\r\n") + "\r\n", nil
}

// run waits for the data channel and serves it until everything is over.
func (p *probe) run(ctx context.Context, seen func(ProbeOutcome)) {
	select {
	case <-ctx.Done():
	case <-p.over:
	case dc := <-p.opened:
		in, err := dc.Detach()
		if err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = in.Close() })
		defer stop()
		path, err := p.peer.Path()
		if err != nil || path.TCP() != (p.transport == ProbeTCP) {
			return
		}
		seen(ProbeOutcome{Remote: path.Remote(), Took: time.Since(p.begun)})
		p.echo(ctx, in, path.Remote())
	}
}

// echoing is a data channel that pion does not read.
type echoing interface {
	ReadDataChannel([]byte) (n int, text bool, err error)
	WriteDataChannel(b []byte, text bool) (int, error)
}

// echo tells the endpoint under which address it is seen, and sends back what it sends.
func (p *probe) echo(ctx context.Context, in echoing, remote netip.AddrPort) {
	hello, err := json.Marshal(struct {
		Transport ProbeTransport `json:"transport"`
		Address   string         `json:"address"`
		Port      uint16         `json:"port"`
	}{p.transport, remote.Addr().String(), remote.Port()})
	if err == nil {
		_, err = in.WriteDataChannel(hello, true)
	}
	limiter := rate.NewLimiter(probeEchoRate, probeEchoRate)
	b := make([]byte, maxProbeEcho)
	for n := 0; err == nil && n < maxProbeEchoes && ctx.Err() == nil; n++ {
		var size int
		var text bool
		size, text, err = in.ReadDataChannel(b) // what is larger is an error, and the end
		if err == nil && limiter.Allow() {
			_, err = in.WriteDataChannel(b[:size], text)
		}
	}
}
