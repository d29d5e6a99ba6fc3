package access

import (
	"container/heap"
	"time"
)

// An entry is something that is over at a time: a token or a call.
type entry struct {
	at    time.Time
	token *token
	call  *call
	index int // in the heap, plus one; 0 outside
}

// An expiryHeap holds entries, the next to be over first.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (h *expiryHeap) Push(x any) {
	e := x.(*entry)
	*h = append(*h, e)
	e.index = len(*h)
}

// Pop implements heap.Interface.
func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = 0
	return e
}

// drop takes an entry out, wherever it is, if it is there.
func (h *expiryHeap) drop(e *entry) {
	if e.index > 0 {
		heap.Remove(h, e.index-1)
	}
}
