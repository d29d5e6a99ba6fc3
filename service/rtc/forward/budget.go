package forward

import (
	"sync/atomic"
	"time"
)

// Budget bounds the bits per second that several peers send together, with bursts of one second's
// worth. A packet that exceeds it is dropped before it is decrypted; only authentic ones spend it, so
// that nobody can use up what is another's. Its methods take no lock.
type Budget struct {
	rate int64 // bits per second

	// paid is the time at which all that was spent so far has been earned.
	paid atomic.Int64

	refused atomic.Uint64
}

// NewBudget returns a full one. The rate is in bits per second and more than zero.
func NewBudget(rate int64) *Budget {
	b := &Budget{rate: max(rate, 1)}
	b.paid.Store(-int64(time.Second))
	return b
}

// Refused returns how many packets were dropped since the last call of it.
func (b *Budget) Refused() uint64 { return b.refused.Swap(0) }

// cost returns how long it takes to earn so many bits.
func (b *Budget) cost(bits int) int64 { return int64(bits) * int64(time.Second) / b.rate }

// has reports whether there is enough for a packet at now.
func (b *Budget) has(bits int, now time.Duration) bool {
	return max(b.paid.Load(), int64(now)-int64(time.Second))+b.cost(bits) <= int64(now)
}

// spend takes what a packet costs, there or not: packets that come at the same time may overdraw it.
func (b *Budget) spend(bits int, now time.Duration) {
	for {
		paid := b.paid.Load()
		if b.paid.CompareAndSwap(paid, max(paid, int64(now)-int64(time.Second))+b.cost(bits)) {
			return
		}
	}
}
