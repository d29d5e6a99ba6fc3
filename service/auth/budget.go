package auth

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// A budget lets a few bcrypt computations run at once and some more wait. One address may fill
// only half of the queue, so that it keeps nobody else out.
type budget struct {
	// Fixed at creation.
	limit    string
	queue    int
	patience time.Duration

	slots chan struct{} // a value per running computation

	mu      sync.Mutex // guards the fields below
	waiting int
	byAddr  map[netip.Prefix]int
}

func newBudget(limit string, workers, queue int, patience time.Duration) *budget {
	return &budget{
		limit:    limit,
		queue:    queue,
		patience: patience,
		slots:    make(chan struct{}, workers),
		byAddr:   make(map[netip.Prefix]int),
	}
}

// acquire waits for a slot, in turn; release gives it back. It returns a *LimitError if the queue
// is full or patience runs out, and ctx's error if that ends first. The zero addr counts for
// the whole queue.
func (b *budget) acquire(ctx context.Context, addr netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	if !b.enter(addr) {
		return b.busy()
	}
	defer b.leave(addr)
	timer := time.NewTimer(b.patience)
	defer timer.Stop()
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return b.busy()
	}
}

func (b *budget) release() { <-b.slots }

func (b *budget) busy() error { return &LimitError{Limit: b.limit, RetryAfter: time.Second} }

func (b *budget) enter(addr netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting >= b.queue || addr.IsValid() && b.byAddr[addr] >= b.queue/2 {
		return false
	}
	b.waiting++
	b.byAddr[addr]++
	return true
}

func (b *budget) leave(addr netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
	if b.byAddr[addr]--; b.byAddr[addr] == 0 {
		delete(b.byAddr, addr)
	}
}
