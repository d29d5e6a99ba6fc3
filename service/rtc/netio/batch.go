package netio

const (
	slotSize      = 1600 // bytes of one slot: more than any packet of an Ethernet path
	batchSlots    = 256  // of a UDP reader or a Batch of NewBatch
	tcpBatchSlots = 64   // of a TCP connection's reader, of which there may be many
	slotsPerChunk = 8    // slots are allocated that many at a time, when first used
)

// Batch collects packets and sends them with few system calls. It is owned by one goroutine.
//
// Packets to one destination leave in the order of their Commits. Packets that follow each other
// to the same destination, all of one size but for a shorter last one, go out as one UDP GSO
// message where the kernel can do that. A packet that cannot be sent is dropped and counted;
// sending never blocks on Linux.
type Batch struct {
	out    sink
	chunks [][]byte
	lens   []int
	to     []Path
	n      int // packets committed and not sent
}

// A sink sends the committed packets of a batch. It may not keep or change them.
type sink interface {
	send(b *Batch)
}

func newBatch(slots int, out sink) *Batch {
	return &Batch{
		out:    out,
		chunks: make([][]byte, slots/slotsPerChunk),
		lens:   make([]int, slots),
		to:     make([]Path, slots),
	}
}

// NewBatchFunc returns a batch that hands its packets to send, one call each, when it is
// flushed. The bytes are borrowed until send returns. It is meant for tests of a data plane that
// runs without sockets.
func NewBatchFunc(send func(packet []byte, to Path)) *Batch {
	return newBatch(batchSlots, sinkFunc(send))
}

type sinkFunc func([]byte, Path)

func (f sinkFunc) send(b *Batch) {
	for i := range b.n {
		f(b.packet(i), b.to[i])
	}
}

// Slot returns the buffer for the next packet: no length, a capacity of 1,600 bytes. It is the
// same buffer until Commit takes it. Flush makes its contents undefined, so a packet is to be
// committed before the next Flush.
func (b *Batch) Slot() []byte {
	chunk := b.chunks[b.n/slotsPerChunk]
	if chunk == nil {
		chunk = make([]byte, slotsPerChunk*slotSize)
		b.chunks[b.n/slotsPerChunk] = chunk
	}
	at := b.n % slotsPerChunk * slotSize
	return chunk[at : at : at+slotSize]
}

// Commit queues the first n bytes of the current slot for the path to, and flushes if that was
// the last slot. Nothing is queued if n is not positive or to is the zero Path. It panics if n
// is larger than a slot.
func (b *Batch) Commit(n int, to Path) {
	if n > slotSize {
		panic("netio: packet larger than its slot")
	}
	if n <= 0 || to.local == 0 || b.chunks[b.n/slotsPerChunk] == nil {
		return
	}
	b.lens[b.n], b.to[b.n] = n, to
	if b.n++; b.n == len(b.to) {
		b.Flush()
	}
}

// Flush sends what is queued. The slots are free for new packets when it returns.
func (b *Batch) Flush() {
	if b.n == 0 {
		return
	}
	b.out.send(b)
	b.n = 0
}

// packet returns committed packet i.
func (b *Batch) packet(i int) []byte {
	at := i % slotsPerChunk * slotSize
	return b.chunks[i/slotsPerChunk][at : at+b.lens[i] : at+b.lens[i]]
}

// An outlet is the sink over a mux's sockets. It always uses the same socket for a local
// address, which is what keeps the order of packets to one destination.
type outlet struct {
	mux     *Mux
	sockets []socket // by local address
	state   *sendState

	// Used within send.
	waiting []int // by local address
	tx      txCounts
}

func (o *outlet) send(b *Batch) {
	tx := &o.tx
	*tx = txCounts{}
	for i := range b.n {
		to := b.to[i]
		switch local := int(to.local) - 1; {
		case to.TCP():
			o.mux.tcp.send(b.packet(i), to, tx)
		case local < len(o.sockets):
			o.waiting[local]++
		default:
			tx.drop(DropNoPath, 1)
		}
	}
	for local, n := range o.waiting {
		if n > 0 {
			o.waiting[local] = 0
			o.sockets[local].sendBatch(b, uint16(local+1), o.state, tx)
		}
	}
	o.mux.counters.addTx(tx)
}
