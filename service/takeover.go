package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"rtcd/service/handover"
	"rtcd/service/rtc"
	"rtcd/service/rtc/netio"
)

// takeOver asks the server that listens at upgrade.socket, if there is one, for all it has. What it
// returns is nil without one.
func (s *Server) takeOver(ctx context.Context) (*inheritance, error) {
	path := s.cfg.Upgrade.Socket
	if path == "" {
		return nil, nil
	}
	c, err := handover.Dial(ctx, path)
	if errors.Is(err, handover.ErrNobody) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take over at %s: %w", path, err)
	}
	h, err := s.askFor(ctx, c)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("take over at %s: %w", path, err)
	}
	return h, nil
}

func (s *Server) askFor(ctx context.Context, c *handover.Conn) (_ *inheritance, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	ask := hello{Protocol: upgradeProtocol, Build: s.opts.Build.Version, PID: os.Getpid()}
	if err := c.Send(ctx, handover.Message{Kind: msgHello, Body: encode(ask)}); err != nil {
		return nil, err
	}
	m, err := c.Receive(ctx)
	if err != nil {
		return nil, err
	}
	h := &inheritance{from: c, sockets: new(netio.Sockets), api: make(map[string]int)}
	if err := h.accept(m); err != nil {
		m.CloseFDs()
		return nil, err
	}
	defer func() {
		if err != nil {
			h.abandon()
		}
	}()
	if err := c.Send(ctx, handover.Message{Kind: msgTake}); err != nil {
		return nil, err
	}
	if m, err = c.Receive(ctx); err != nil {
		return nil, err
	}
	if err := decode(m, msgState, &h.state); err != nil {
		m.CloseFDs()
		return nil, err
	}
	for i, fd := range m.FDs {
		link, err := handover.Adopt(fd)
		if err != nil {
			m.FDs = m.FDs[i+1:]
			m.CloseFDs()
			return nil, err
		}
		h.links = append(h.links, link)
	}
	if len(h.state.Formers) != len(h.links)+1 {
		return nil, fmt.Errorf("%d former processes with %d links", len(h.state.Formers), len(h.links))
	}
	return h, nil
}

// accept sorts the descriptors of an offer.
func (h *inheritance) accept(m handover.Message) error {
	var o offer
	if err := decode(m, msgOffer, &o); err != nil {
		return err
	}
	want := len(o.UDP) + len(o.TCP) + 1
	if o.Admin != "" {
		want++
	}
	if len(m.FDs) != want {
		return fmt.Errorf("%d descriptors for %d sockets", len(m.FDs), want)
	}
	fds := m.FDs
	next := func() (fd int) {
		fd, fds = fds[0], fds[1:]
		return fd
	}
	for _, a := range o.UDP {
		h.sockets.UDP = append(h.sockets.UDP, netio.Socket{Addr: a, FD: next()})
	}
	for _, a := range o.TCP {
		h.sockets.TCP = append(h.sockets.TCP, netio.Socket{Addr: a, FD: next()})
	}
	h.api[o.Public] = next()
	if o.Admin != "" {
		h.api[o.Admin] = next()
	}
	return nil
}

// listener returns the inherited listener of a configured address, nil without one.
func (s *Server) listener(address string) (*net.TCPListener, error) {
	if s.inherited == nil {
		return nil, nil
	}
	fd, ok := s.inherited.api[address]
	if !ok {
		return nil, nil
	}
	return handover.TCPListener(fd)
}

// inherit prepares the configuration of media for what is taken over.
func (s *Server) inherit(cfg *rtc.Config) {
	h := s.inherited
	if h == nil {
		return
	}
	cfg.Inherit = h.sockets
	if len(h.state.Found) > 0 {
		cfg.Engine.Override.Found, cfg.Discover = h.state.Found, ""
	}
}

// succeed makes the taking over final: from now on this process is in front.
func (s *Server) succeed(ctx context.Context) error {
	h := s.inherited
	if h == nil {
		return nil
	}
	defer h.release()
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if err := s.calls.Succeed(true); err != nil {
		return err
	}
	if err := h.from.Send(ctx, handover.Message{Kind: msgDone}); err != nil {
		return err
	}
	if err := receive(ctx, h.from, msgCommit, nil); err != nil {
		return err
	}
	s.calls.SetStray(s.calls.pass)
	if s.reports != nil {
		s.calls.keep = s.adopt
	}
	latest := s.calls.add(h.state.Formers[0], h.from)
	h.from = nil
	select { // what it kept comes before what those tell who are older
	case <-latest.settled:
	case <-latest.gone:
	case <-ctx.Done():
	}
	for i, c := range h.links {
		s.calls.add(h.state.Formers[i+1], c).link.Resume()
	}
	h.links = nil
	s.log.Info("upgrade: taken over", "from", latest.name, "former", len(h.state.Formers))
	return nil
}

// pass shows a datagram to all former processes: it names a session that is not ours.
func (f *fleet) pass(d netio.Stray) {
	for _, o := range f.all() {
		o.link.Post(frameStray, encode(d))
	}
}
