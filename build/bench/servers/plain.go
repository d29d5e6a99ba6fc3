//go:build linux

package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"rtcd/build/bench/endpoint"
	"rtcd/build/bench/plainpion/wire"
)

// Plain is plainpion.
type Plain struct {
	*Process
	url string
}

// StartPlain starts a binary of plainpion.
func StartPlain(ctx context.Context, binary string) (*Plain, error) {
	p, addr, err := start(ctx, nil, true, binary)
	if err != nil {
		return nil, err
	}
	return &Plain{Process: p, url: "http://" + addr}, nil
}

// Prepare implements Server.
func (p *Plain) Prepare(ctx context.Context, rooms []Room) error {
	for _, r := range rooms {
		req := wire.Room{Name: r.Name}
		for _, m := range r.Members {
			for _, k := range m.Publish {
				req.Tracks = append(req.Tracks, wire.Track{Session: m.ID, Video: k.Video})
			}
		}
		if err := p.post(ctx, "/rooms", req, nil); err != nil {
			return err
		}
	}
	return nil
}

// Endpoint implements Server.
func (p *Plain) Endpoint(room Room, m Member) (*endpoint.Endpoint, error) {
	cfg := endpoint.Config{ID: m.ID, Publish: m.Publish, Stamps: m.Stamps}
	for _, other := range room.Members {
		if other.ID == m.ID {
			continue
		}
		for _, k := range other.Publish {
			cfg.Receive = append(cfg.Receive, k.Video)
		}
	}
	return endpoint.New(cfg)
}

// Join implements Server.
func (p *Plain) Join(ctx context.Context, room string, e *endpoint.Endpoint) error {
	offer, err := e.Offer(ctx)
	if err != nil {
		return err
	}
	var answer wire.Answer
	if err := p.post(ctx, "/join", wire.Join{Room: room, Session: e.ID, SDP: offer}, &answer); err != nil {
		return err
	}
	if err := e.Answered(answer.SDP); err != nil {
		return err
	}
	return e.AwaitOpen(ctx)
}

func (p *Plain) post(ctx context.Context, path string, body, result any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %.200s", res.Status, answer)
	}
	if err == nil && result != nil {
		err = json.Unmarshal(answer, result)
	}
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	return nil
}

// Goroutines implements Server.
func (p *Plain) Goroutines(ctx context.Context) (int, error) {
	stats, err := p.stats(ctx)
	return stats.Goroutines, err
}

// Forwarded implements Server.
func (p *Plain) Forwarded(ctx context.Context) (uint64, error) {
	stats, err := p.stats(ctx)
	return stats.Forwarded, err
}

func (p *Plain) stats(ctx context.Context) (wire.Stats, error) {
	var stats wire.Stats
	b, err := get(ctx, p.url+"/stats")
	if err != nil {
		return stats, err
	}
	if err := json.Unmarshal(b, &stats); err != nil {
		return stats, fmt.Errorf("read the figures of plainpion: %w", err)
	}
	return stats, nil
}

// Profile implements Server.
func (p *Plain) Profile(ctx context.Context, d time.Duration) ([]byte, error) {
	return get(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", p.url, int(d.Seconds())))
}
