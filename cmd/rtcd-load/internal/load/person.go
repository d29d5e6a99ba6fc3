package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rtcd/client"
	"rtcd/cmd/rtcd-load/internal/endpoint"
	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/cmd/rtcd-load/internal/scenario"
)

// rids are the layers of a simulcast, the cheapest first, and shares what they have of its bitrate.
var (
	rids   = []string{"l", "m", "h"}
	shares = []float64{0.1, 0.25, 1}
)

// muteMargin is the time between the last packet and a mute, and between an unmute and the first
// packet: media and signalling take different ways, and what a server drops because it is told to is
// not lost.
const muteMargin = 300 * time.Millisecond

// A person is one end user of a run.
type person struct {
	run     *run
	number  int
	plan    scenario.Person
	session string
	call    string

	endpoint   *endpoint.Endpoint
	receiver   *media.Receiver
	closed     chan struct{} // closed when the server has ended the session
	closedOnce sync.Once
	leaving    sync.Once

	joinedAt time.Duration // by media.Now, when the join was sent

	mu     sync.Mutex
	open   time.Duration // from the join to the open data channel; 0: not yet
	heard  time.Duration // from the join to the first packet; 0: not yet
	awaits bool          // there was somebody to hear when the channel opened
	left   bool          // has ended, the receiver's time with it
	until  time.Duration // by media.Now, when it stopped receiving
	stops  []func()      // of what is being sent
}

func (r *run) person(number int, plan scenario.Person) *person {
	return &person{
		run: r, number: number, plan: plan, closed: make(chan struct{}),
		session: fmt.Sprintf("load%08x-%d", r.id, number), call: fmt.Sprintf("load%08x-%s", r.id, plan.Call),
	}
}

// live does what the person is to do. It calls joined once that is known to have worked or not, at
// the latest when it returns, and returns when nothing more is to be sent or the person has left.
func (p *person) live(ctx context.Context, joined func()) {
	defer joined()
	r := p.run
	if p.plan.Late && !p.wait(ctx, 0, r.measuring) || !p.wait(ctx, p.plan.Joins, nil) {
		return
	}
	if err := p.enter(ctx); err != nil {
		if ctx.Err() == nil {
			r.failed.Add(1)
			r.fault(fmt.Errorf("join: %w", err))
		}
		return
	}
	microphone, err := p.publish(ctx)
	if err != nil && ctx.Err() == nil {
		r.failed.Add(1)
		r.fault(fmt.Errorf("publish: %w", err))
	}
	joined()
	defer p.stop()
	if !p.wait(ctx, 0, r.measuring) {
		return
	}
	leave := time.Hour * 24 * 365
	if p.plan.Leaves > 0 {
		leave = p.plan.Leaves
	}
	timer := time.NewTimer(leave)
	defer timer.Stop()
	for next := 0; ; next++ {
		var mute <-chan time.Time
		var ticker *time.Timer
		if p.plan.Mutes && microphone != nil {
			ticker = time.NewTimer(time.Duration(r.o.Scenario.Rooms[p.plan.Shape].MuteEvery) - muteMargin)
			mute = ticker.C
		}
		select {
		case <-mute:
			p.toggle(ctx, microphone, next%2 == 0)
			continue
		case <-timer.C:
			p.stop()
			p.wait(ctx, r.drain(), nil)
			p.leave()
		case <-p.closed:
			p.drop("session ended by the server")
		case <-p.endpoint.Failed():
			p.drop("connection lost")
		case <-r.over:
		case <-ctx.Done():
		}
		if ticker != nil {
			ticker.Stop()
		}
		return
	}
}

// wait waits for some time and for a channel, if there is one. It reports false if the run ends first.
func (p *person) wait(ctx context.Context, d time.Duration, c <-chan struct{}) bool {
	var after <-chan time.Time
	if c == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-c:
	case <-after:
	case <-p.run.over:
		return false
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}

// enter joins and waits for the open data channel.
func (p *person) enter(ctx context.Context) error {
	r := p.run
	p.receiver = media.NewReceiver(r.ledger, p.plan.Room, p.number, p.hears)
	e, err := endpoint.New(r.apis[r.key(p.plan.Shape)], endpoint.Config{
		Session: p.session, Backend: r.conn, Receiver: p.receiver, ChannelSignalling: r.o.Channel,
	})
	if err != nil {
		return err
	}
	p.endpoint = e
	p.joinedAt = media.Now()
	r.mu.Lock()
	r.sessions[p.session] = p
	r.mu.Unlock()
	if err := r.conn.Join(client.Join{
		CallID: p.call, UserID: fmt.Sprintf("user-%s", p.session), SessionID: p.session, DCSignaling: r.o.Channel,
	}); err != nil {
		return err
	}
	timeout, cancel := context.WithTimeoutCause(ctx, joinTimeout, fmt.Errorf("after %v", joinTimeout))
	defer cancel()
	connected := make(chan error, 1)
	go func() { connected <- e.Connect(timeout) }()
	select {
	case err = <-connected:
	case <-p.closed:
		cancel()
		<-connected
		err = errors.New("session refused or ended by the server")
	}
	if err != nil {
		return err
	}
	now := media.Now()
	awaits := p.somebodySends()
	p.mu.Lock()
	p.open, p.awaits = now-p.joinedAt, awaits
	heard := p.heard
	p.mu.Unlock()
	if awaits && heard > 0 { // it was quicker than we are
		r.firstMedia.Add(heard)
	}
	r.join.Add(now - p.joinedAt)
	r.people.Add(1)
	return nil
}

// somebodySends reports whether there is another person's media in the room.
func (p *person) somebodySends() bool {
	for _, s := range p.run.ledger.Sources() {
		if s.Room == p.plan.Room && s.Sender != p.number && s.Began() != 0 && s.Ended() == 0 {
			return true
		}
	}
	return false
}

// hears notes that the first packet has come.
func (p *person) hears() {
	d := media.Now() - p.joinedAt
	p.mu.Lock()
	p.heard = d
	counts := p.awaits
	p.mu.Unlock()
	if counts {
		p.run.firstMedia.Add(d)
	}
}

// drop counts an end that nobody asked for.
func (p *person) drop(why string) {
	p.run.dropped.Add(1)
	p.run.fault(errors.New(why))
	p.markLeft()
}

// markLeft notes that the person receives nothing more.
func (p *person) markLeft() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.left, p.until = true, media.Now()
		if p.open > 0 {
			p.run.people.Add(-1)
		}
	}
}

// leave ends the session and the connection.
func (p *person) leave() {
	p.leaving.Do(func() {
		p.markLeft()
		if err := p.run.conn.Leave(p.session); err != nil {
			p.run.fault(fmt.Errorf("leave: %w", err))
		}
		p.endpoint.Close()
	})
}

// stop ends all that the person sends.
func (p *person) stop() {
	p.mu.Lock()
	stops := p.stops
	p.stops = nil
	p.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

// toggle mutes or unmutes the person.
func (p *person) toggle(ctx context.Context, m *media.Microphone, mute bool) {
	tell := p.run.conn.Unmute
	if mute {
		m.Pause(true)
		if !p.wait(ctx, muteMargin, nil) {
			return
		}
		tell = p.run.conn.Mute
	}
	if err := tell(p.session); err != nil {
		p.run.fault(err)
	}
	if !mute && p.wait(ctx, muteMargin, nil) {
		m.Pause(false)
	}
}

// record returns the person's join for the report; ok is false if it did not work.
func (p *person) record() (j report.Join, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j = report.Join{At: (p.joinedAt - p.run.began).Seconds(), Open: report.Ms(p.open), Media: -1}
	if p.awaits && p.heard > 0 {
		j.Media = report.Ms(p.heard)
	}
	return j, p.open > 0
}
