package media

import (
	"sync"
	"sync/atomic"
	"time"

	"rtcd/cmd/rtcd-load/internal/stats"
)

// MaxLayers is how many layers a simulcast has at most.
const MaxLayers = 3

// Kind is what a source is.
type Kind uint8

// The kinds.
const (
	Voice Kind = iota
	Camera
	Screen
)

// String returns the kind's name.
func (k Kind) String() string { return [...]string{"voice", "camera", "screen"}[k] }

// A Source is a voice, camera or screen that a person of a room sends.
type Source struct {
	ID     uint32
	Room   int // number of the room
	Sender int // number of the person
	Kind   Kind
	Layers int

	sent  [MaxLayers]atomic.Uint32 // packets, by layer
	began atomic.Int64             // by Now; 0: not yet
	ended atomic.Int64             // by Now; 0: not yet
}

// Sent returns how many packets of a layer were sent.
func (s *Source) Sent(layer int) uint32 { return s.sent[layer].Load() }

// Began returns when the first packet was sent, 0 if none was.
func (s *Source) Began() time.Duration { return time.Duration(s.began.Load()) }

// Ended returns when the source was stopped, 0 if it was not.
func (s *Source) Ended() time.Duration { return time.Duration(s.ended.Load()) }

// Stop says that nothing more will be sent.
func (s *Source) Stop() { s.ended.CompareAndSwap(0, int64(Now())) }

// Totals are counts of all receivers. They are safe for concurrent use.
type Totals struct {
	Sent       atomic.Uint64 // packets
	SentBytes  atomic.Uint64 // of payload
	Skipped    atomic.Uint64 // packets that were not sent because it was too late for them
	Failed     atomic.Uint64 // packets that could not be written
	Received   atomic.Uint64 // packets, duplicates and bad ones among them
	Bytes      atomic.Uint64 // of payload
	Expected   atomic.Uint64 // packets from the first to the newest of each stream
	Unique     atomic.Uint64 // of these that came
	Withheld   atomic.Uint64 // packets that the server left out without a gap in its own numbers
	Duplicates atomic.Uint64
	Late       atomic.Uint64 // too late to tell whether they are duplicates
	Reordered  atomic.Uint64
	Bad        atomic.Uint64 // payloads without stamp, or changed
	Foreign    atomic.Uint64 // payloads of another room, of the receiver itself, or of another run
	Frames     atomic.Uint64 // pictures that could be shown
	Freezes    atomic.Uint64
	Frozen     atomic.Int64  // ns, of all freezes
	Asked      atomic.Uint64 // keyframes

	VoiceDelay stats.Histogram // from sending to reception
	VideoDelay stats.Histogram
}

// A Ledger knows all sources of a run and counts what comes of them. It is safe for concurrent use.
type Ledger struct {
	Run    uint32
	Totals Totals

	mu      sync.Mutex
	sources atomic.Pointer[[]*Source] // copied on write
}

// NewLedger returns the ledger of a run of some number.
func NewLedger(run uint32) *Ledger {
	l := &Ledger{Run: run}
	l.sources.Store(&[]*Source{})
	return l
}

// Add enters a source.
func (l *Ledger) Add(room, sender int, kind Kind, layers int) *Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.sources.Load()
	s := &Source{ID: uint32(len(old)), Room: room, Sender: sender, Kind: kind, Layers: layers}
	all := append(old[:len(old):len(old)], s)
	l.sources.Store(&all)
	return s
}

// Sources returns all of them, by their ids.
func (l *Ledger) Sources() []*Source { return *l.sources.Load() }

// source returns the one of an id, nil if there is none.
func (l *Ledger) source(id uint32) *Source {
	all := *l.sources.Load()
	if int64(id) >= int64(len(all)) {
		return nil
	}
	return all[id]
}
