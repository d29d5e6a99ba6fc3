//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rtcd/build/fire/field"
	"rtcd/service/rtc/rtctest"
)

// PartyConfig says how large a load is.
type PartyConfig struct {
	Calls, People int // people in each call
	// Screen is shared by the first of each call; zero: none.
	Screen   Screen
	Backends []*field.Namespace // in turn, one for each call
	Clients  []*field.Namespace // in turn, one for each person
	// Change makes the endpoint of a person another than usual.
	Change func(name string, cfg *rtctest.EndpointConfig)
}

// Party is a server with backends and people in calls.
type Party struct {
	Server   *Server
	Backends []*Backend
	People   []*Person

	cfg  PartyConfig
	idle Usage // before anybody joined
}

// NewParty connects backends to a server that runs, and people to calls, until everybody hears
// everybody of their call.
func NewParty(ctx context.Context, s *Server, cfg PartyConfig) (*Party, error) {
	p := &Party{Server: s, cfg: cfg}
	if err := p.start(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Party) start(ctx context.Context) error {
	for i, host := range p.cfg.Backends {
		b, err := NewBackend(ctx, p.Server, host, fmt.Sprintf("backend%d", i+1))
		if err != nil {
			return err
		}
		p.Backends = append(p.Backends, b)
	}
	var err error
	if p.idle, err = p.Server.Usage(ctx); err != nil {
		return err
	}
	return p.Fill(ctx)
}

// Fill brings everybody into the calls.
func (p *Party) Fill(ctx context.Context) error {
	p.People = nil
	for c := range p.cfg.Calls {
		for i := range p.cfg.People {
			name := fmt.Sprintf("p%d-%d-%s", c+1, i+1, suffix())
			var change func(*rtctest.EndpointConfig)
			if p.cfg.Change != nil {
				change = func(cfg *rtctest.EndpointConfig) { p.cfg.Change(name, cfg) }
			}
			person, err := NewPerson(p.Backends[c%len(p.Backends)], p.cfg.Clients[len(p.People)%len(p.cfg.Clients)],
				fmt.Sprintf("call%d", c+1), name, change)
			if err != nil {
				return err
			}
			p.People = append(p.People, person)
		}
	}
	if err := each(p.People, func(q *Person) error { return q.Connect(ctx) }); err != nil {
		return err
	}
	if p.cfg.Screen.Bitrate > 0 {
		for c := range p.cfg.Calls {
			if err := p.People[c*p.cfg.People].Share(ctx, p.cfg.Screen); err != nil {
				return err
			}
		}
	}
	if silent := p.AwaitHearing(ctx, 20*time.Second); silent != nil {
		return fmt.Errorf("at first %d pairs do not hear: %v", len(silent), silent[:min(4, len(silent))])
	}
	return p.awaitScreens(ctx)
}

// awaitScreens waits until everybody sees the screen of their call.
func (p *Party) awaitScreens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, pair := range p.screens() {
		err := pair.To.e.AwaitView(ctx, pair.From.Name, "screen", func(v rtctest.View) bool { return v.Pictures > 0 })
		if err != nil {
			return fmt.Errorf("%s does not see the screen of %s", pair.To.Name, pair.From.Name)
		}
	}
	return nil
}

// Pair is somebody who is sent what another sends.
type Pair struct{ From, To *Person }

// String names the pair.
func (p Pair) String() string { return p.From.Name + "→" + p.To.Name }

// Pairs are all pairs of people in the same call.
func (p *Party) Pairs() (out []Pair) {
	for _, from := range p.People {
		for _, to := range p.People {
			if from != to && from.Call == to.Call && from.Backend == to.Backend {
				out = append(out, Pair{from, to})
			}
		}
	}
	return out
}

func (p *Party) screens() (out []Pair) {
	for _, pair := range p.Pairs() {
		if pair.From.Shares() {
			out = append(out, pair)
		}
	}
	return out
}

// AwaitHearing waits until a packet has come to each of each other, from now on, and returns the pairs
// of which that is not so after the time.
func (p *Party) AwaitHearing(ctx context.Context, most time.Duration) (silent []Pair) {
	_, silent = p.Recovery(ctx, time.Now(), most, p.Pairs())
	return silent
}

// Recovery waits until something has come after a moment in each of the pairs, and returns how long
// after it that was for the last of them, and the pairs that heard nothing in the time.
func (p *Party) Recovery(ctx context.Context, since time.Time, most time.Duration, pairs []Pair) (time.Duration, []Pair) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var longest time.Duration
	silent := slices.Clone(pairs)
	for {
		silent = slices.DeleteFunc(silent, func(pair Pair) bool {
			took := pair.Back(since)
			longest = max(longest, took)
			return took > 0
		})
		if len(silent) == 0 {
			return longest, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return longest, silent
		}
	}
}

// Empty has everybody leave.
func (p *Party) Empty() error {
	err := each(p.People, func(q *Person) error { return q.Leave() })
	p.People = nil
	return err
}

// Close ends everybody and the backends' connections. The server goes on.
func (p *Party) Close() {
	_ = each(p.People, func(q *Person) error { q.Close(); return nil })
	for _, b := range p.Backends {
		b.Close()
	}
}

// each runs f for all at once, and waits.
func each(people []*Person, f func(*Person) error) error {
	errs := make([]error, len(people))
	var wg sync.WaitGroup
	for i, q := range people {
		wg.Go(func() { errs[i] = f(q) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// AwaitSeeing waits until somebody's picture has come to each who is shown a screen, from now on, and
// returns the pairs of which that is not so after the time.
func (p *Party) AwaitSeeing(ctx context.Context, most time.Duration) (blind []Pair) {
	since := time.Now()
	for _, pair := range p.screens() {
		within, cancel := context.WithDeadline(ctx, since.Add(most))
		err := pair.To.e.AwaitView(within, pair.From.Name, "screen", func(v rtctest.View) bool { return v.LastShow.After(since) })
		cancel()
		if err != nil {
			blind = append(blind, pair)
		}
	}
	return blind
}

// Back returns how long after a moment the first packet came; 0: none has.
func (p Pair) Back(since time.Time) time.Duration {
	p.To.mu.Lock()
	defer p.To.mu.Unlock()
	h := p.To.heard[p.From.Name]
	if h == nil {
		return 0
	}
	for _, at := range h.resumed {
		if at.After(since) {
			return at.Sub(since)
		}
	}
	if h.last.After(since) {
		return h.last.Sub(since)
	}
	return 0
}
