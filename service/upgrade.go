package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"rtcd/service/access"
	"rtcd/service/api"
	"rtcd/service/api/ws"
	"rtcd/service/auth"
	"rtcd/service/handover"
	"rtcd/service/rtc"
	"rtcd/service/rtc/netio"
)

// An upgrade on one host. The successor is started beside the server that runs, and asks it over
// upgrade.socket:
//
//	successor → server   hello    who asks
//	server → successor   offer    the listening sockets; from now on what its endpoints send reaches the
//	                              server whoever else reads those sockets
//	successor → server   take     it is ready
//	server → successor   state    everything but media is closed; this is what it knew
//	successor → server   done     the successor has opened all that
//	server → successor   commit   the server serves nobody but the calls it has
//
// Until the commit any failure leaves everything with the server that ran before: it takes over from
// itself, in one process, what it has just given away. After the commit the connection is a link, over
// which the successor stands in front of the former server's calls (fleet), until the last has ended.

// Kinds of messages before the commit.
const (
	msgHello = 1 + iota
	msgOffer
	msgTake
	msgState
	msgDone
	msgCommit
	msgRefuse // instead of an answer: why not
)

// Times of an upgrade.
const (
	// answerTime bounds an answer that takes no work.
	answerTime = 10 * time.Second
	// openTime bounds how long a successor may take to open what it is given.
	openTime = 30 * time.Second
	// partTime bounds how long backends may take to leave a server that hands over.
	partTime = time.Second
)

type hello struct {
	Protocol int
	Build    string
	PID      int
}

type offer struct {
	Build         string
	UDP, TCP      []netip.AddrPort // of the descriptors, in that order
	Public, Admin string           // as configured; then a descriptor each, unless it is empty
}

// formerState says what calls a former process has.
type formerState struct {
	Name     string
	Sessions []rtc.SessionInfo `json:",omitempty"`
	Calls    []rtc.CallKey     `json:",omitempty"`
}

// handedState is what the successor has to know.
type handedState struct {
	Formers []formerState // the sender; then those whose links are the descriptors, in that order
	Access  access.State
	Auth    auth.State
	Store   string                    // whose keys and epochs those are
	Parked  []ws.Parked               `json:",omitempty"`
	Found   map[netip.Addr]netip.Addr `json:",omitempty"` // external addresses
}

// An inheritance is what a server takes over.
type inheritance struct {
	from    *handover.Conn
	sockets *netio.Sockets
	api     map[string]int // listening sockets by configured address
	state   handedState
	links   []*handover.Conn // to all former processes but the sender
}

// release closes what was handed over in descriptors, which has been duplicated by then.
func (h *inheritance) release() {
	h.sockets.Close()
	for _, fd := range h.api {
		_ = syscall.Close(fd)
	}
	h.api = nil
}

// abandon gives everything up.
func (h *inheritance) abandon() {
	h.release()
	if h.from != nil {
		_ = h.from.Close()
	}
	for _, c := range h.links {
		_ = c.Close()
	}
}

// errSucceeded is how the service of a server ends that has a successor.
var errSucceeded = errors.New("a successor takes over")

// A succession is the way of a server to its successor.
type succession struct {
	ln      *handover.Listener
	serving sync.WaitGroup

	mu   sync.Mutex
	ask  *handover.Conn // of one that asks
	next *handover.Conn // of the one that takes over
	own  *inheritance   // what it was offered, for ourselves if it fails
	over bool
}

// openUpgrade lets successors ask from now on.
func (s *Server) openUpgrade() {
	path := s.cfg.Upgrade.Socket
	if path == "" {
		return
	}
	ln, err := handover.Listen(path)
	if err != nil {
		s.log.Error("no successor can take over", "path", path, "err", err)
		return
	}
	s.succession = &succession{ln: ln}
	s.onClose(s.succession.close)
}

// close ends the asking.
func (u *succession) close() error {
	err := u.ln.Close()
	u.mu.Lock()
	u.over = true
	if u.ask != nil {
		_ = u.ask.Close()
	}
	u.mu.Unlock()
	u.serving.Wait()
	if next, own := u.take(); next != nil { // the server ends for another reason
		_ = next.Close()
		own.release()
	}
	return err
}

// take returns the connection to the successor and what that was offered, once.
func (u *succession) take() (*handover.Conn, *inheritance) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next, own := u.next, u.own
	u.next, u.own = nil, nil
	return next, own
}

// awaitSuccessor answers those who ask, until one takes over: that ends the service.
func (s *Server) awaitSuccessor(failed chan<- error) {
	u := s.succession
	if u == nil {
		return
	}
	u.serving.Go(func() {
		for {
			c, err := u.ln.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.ask = c
			over := u.over
			u.mu.Unlock()
			var own *inheritance
			if !over {
				own = s.answer(c)
			}
			if own != nil {
				u.mu.Lock()
				u.ask, u.next, u.own = nil, c, own
				u.mu.Unlock()
				failed <- errSucceeded
				return
			}
			_ = c.Close()
		}
	})
}

// answer tells one who asks what there is to take over, and returns that once it is about to, else nil.
func (s *Server) answer(c *handover.Conn) *inheritance {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	var h hello
	if err := receive(ctx, c, msgHello, &h); err != nil {
		s.log.Warn("upgrade: a successor asks in vain", "err", err)
		return nil
	}
	log := s.log.With("successor", h.Build, "pid", h.PID)
	if err := s.mayHandOver(h); err != nil {
		log.Warn("upgrade refused", "err", err)
		_ = c.Send(ctx, handover.Message{Kind: msgRefuse, Body: []byte(err.Error())})
		return nil
	}
	own, err := s.offer()
	if err != nil {
		log.Error("upgrade: cannot hand over", "err", err)
		_ = c.Send(ctx, handover.Message{Kind: msgRefuse, Body: []byte(err.Error())})
		return nil
	}
	if err = c.Send(ctx, s.messageOf(own)); err == nil {
		err = receive(ctx, c, msgTake, nil)
	}
	if err != nil {
		log.Warn("upgrade: the successor does not take over", "err", err)
		own.release()
		s.calls.alone()
		return nil
	}
	log.Info("upgrade: the successor takes over")
	return own
}

func (s *Server) mayHandOver(h hello) error {
	switch {
	case h.Protocol != upgradeProtocol:
		return fmt.Errorf("upgrade protocol %d is not the %d of %s", h.Protocol, upgradeProtocol, s.opts.Build.Version)
	case s.drain.DrainState().Draining:
		return errors.New("the server is draining")
	}
	return nil
}

// offer returns all listening sockets.
func (s *Server) offer() (*inheritance, error) {
	sockets, err := s.calls.HandOver()
	if err != nil {
		return nil, err
	}
	h := &inheritance{sockets: sockets, api: make(map[string]int)}
	for addr, srv := range map[string]*api.Server{s.cfg.API.HTTP.ListenAddress: s.public, s.cfg.API.Admin.ListenAddress: s.admin} {
		if srv == nil {
			continue
		}
		fd, err := handover.Duplicate(srv.Socket())
		if err != nil {
			h.release()
			return nil, fmt.Errorf("duplicate listener of %s: %w", addr, err)
		}
		h.api[addr] = fd
	}
	return h, nil
}

// messageOf returns the message that offers h.
func (s *Server) messageOf(h *inheritance) handover.Message {
	o := offer{Build: s.opts.Build.Version, Public: s.cfg.API.HTTP.ListenAddress}
	m := handover.Message{Kind: msgOffer}
	for _, one := range h.sockets.UDP {
		o.UDP, m.FDs = append(o.UDP, one.Addr), append(m.FDs, one.FD)
	}
	for _, one := range h.sockets.TCP {
		o.TCP, m.FDs = append(o.TCP, one.Addr), append(m.FDs, one.FD)
	}
	m.FDs = append(m.FDs, h.api[o.Public])
	if s.admin != nil {
		o.Admin = s.cfg.API.Admin.ListenAddress
		m.FDs = append(m.FDs, h.api[o.Admin])
	}
	m.Body = encode(o)
	return m
}

// giveWay hands everything but the calls to the successor that has asked, and serves those to their
// end. If the successor fails, this process goes on as before.
func (s *Server) giveWay(ctx context.Context, serving *sync.WaitGroup) error {
	began := time.Now()
	next, own := s.succession.take()
	state := s.part(serving)
	s.log.Info("upgrade: handed over", "sessions", len(state.Formers[0].Sessions), "after", time.Since(began).Round(time.Millisecond))
	links := s.parted
	err := s.cede(ctx, next, state, links)
	if !errors.Is(err, errNotTaken) {
		own.release()
		for _, c := range links {
			_ = c.Close()
		}
		return err
	}
	s.log.Error("upgrade: the successor has failed, going on without it", "err", err)
	own.state, own.links = state, links
	return s.goOn(ctx, own)
}

// part closes all but the calls, and returns what is known. What calls have to say is kept meanwhile.
func (s *Server) part(serving *sync.WaitGroup) handedState {
	s.out.hold()
	ctx, cancel := context.WithTimeout(context.Background(), partTime)
	defer cancel()
	s.ending, s.handing = ctx, true
	if err := s.close(); err != nil {
		s.log.Error("upgrade: not all was closed well", "err", err)
	}
	serving.Wait()
	hold, stop := context.WithTimeout(context.Background(), orderTime)
	defer stop()
	formers, links := s.calls.holdFormers(hold)
	s.parted = links
	own := formerState{Name: fmt.Sprintf("%s pid %d", s.opts.Build.Version, os.Getpid())}
	own.Sessions, own.Calls = s.calls.Live()
	return handedState{
		Formers: append([]formerState{own}, formers...), Access: s.access.Export(), Auth: s.auth.Export(), Store: s.storePath(),
		Parked: s.left, Found: s.calls.Found(),
	}
}

// storePath names the store that this process has; empty: none that another one can have.
func (s *Server) storePath() string {
	if s.cfg.Store.DataSource == "" {
		return ""
	}
	path, err := filepath.Abs(s.cfg.Store.DataSource)
	if err != nil {
		return ""
	}
	return path
}

// closeCalls ends all calls, unless they go on for a successor.
func (s *Server) closeCalls() error {
	if s.handing {
		return nil
	}
	return s.calls.Close()
}

// partFromBackends closes the WebSockets, and keeps what backends have not got.
func (s *Server) partFromBackends() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), partTime)
	defer cancel()
	s.left, err = s.ws.HandOver(ctx)
	return s.cutOff("websockets", err)
}

// errNotTaken says that a successor has failed before it had taken over.
var errNotTaken = errors.New("not taken over")

// cede gives the state to the successor and then serves the calls for it, until there are none.
func (s *Server) cede(ctx context.Context, next *handover.Conn, state handedState, links []*handover.Conn) error {
	if err := s.commitTo(next, state, links); err != nil {
		_ = next.Close()
		return errors.Join(errNotTaken, err)
	}
	return s.serveFormer(ctx, next)
}

func (s *Server) commitTo(next *handover.Conn, state handedState, links []*handover.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	m := handover.Message{Kind: msgState, Body: encode(state)}
	defer m.CloseFDs()
	for _, c := range links {
		fd, err := c.FD()
		if err != nil {
			return err
		}
		m.FDs = append(m.FDs, fd)
	}
	if err := next.Send(ctx, m); err != nil {
		return err
	}
	if err := receive(ctx, next, msgDone, nil); err != nil {
		return err
	}
	return next.Send(ctx, handover.Message{Kind: msgCommit})
}

// goOn takes over from this process itself: its calls become those of a former process that happens to
// be the same.
func (s *Server) goOn(ctx context.Context, own *inheritance) error {
	here, there, err := handover.Pair()
	if err != nil {
		own.abandon()
		return errors.Join(err, s.calls.Server.Close())
	}
	served := make(chan error, 1)
	go func() {
		m, err := there.Receive(ctx) // not used: the state is at hand
		if err == nil && m.Kind != msgDone {
			err = errNotTaken
		}
		if err == nil {
			err = there.Send(ctx, handover.Message{Kind: msgCommit})
		}
		if err != nil {
			_ = there.Close()
			served <- errors.Join(err, s.calls.Server.Close())
			return
		}
		served <- s.serveFormer(context.WithoutCancel(ctx), there)
	}()
	own.from = here
	opts := s.opts
	opts.inherited = own
	next, err := New(ctx, s.cfg, opts)
	if err == nil {
		s.again.Store(next)
		select {
		case <-s.drain.halt: // before there was somebody to tell
			next.Halt()
		default:
		}
		err = next.Run(ctx)
	}
	return errors.Join(err, <-served)
}

// receive waits for a message of a kind and decodes it.
func receive(ctx context.Context, c *handover.Conn, kind uint8, into any) error {
	m, err := c.Receive(ctx)
	if err != nil {
		return err
	}
	m.CloseFDs()
	return decode(m, kind, into)
}

func decode(m handover.Message, kind uint8, into any) error {
	switch {
	case m.Kind == msgRefuse:
		return fmt.Errorf("refused: %s", m.Body)
	case m.Kind != kind:
		return fmt.Errorf("message %d instead of %d", m.Kind, kind)
	case into == nil:
		return nil
	}
	return json.Unmarshal(m.Body, into)
}
