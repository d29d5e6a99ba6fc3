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
// message where the kernel can do that. A packet that cannot be sent is dropped and counted, and a
// destination to which many cannot is left alone for a while. Sending does not block on Linux,
// and nowhere for longer than 100 ms.
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
	waiting []int  // by local address
	marks   []mark // of the batch's packets
	marked  bool   // marks are not all zero
	tx      txCounts
}

func (o *outlet) send(b *Batch) {
	tx := &o.tx
	*tx = txCounts{}
	o.mark(b)
	for i := range b.n {
		to := b.to[i]
		switch local := int(to.local) - 1; {
		case to.TCP():
			o.mux.tcp.send(b.packet(i), to, tx)
		case local >= len(o.sockets):
			tx.drop(DropNoPath, 1)
		case o.marks[i]&markPaused != 0:
			tx.drop(DropPaused, 1)
		default:
			o.waiting[local]++
		}
	}
	for local, n := range o.waiting {
		if n > 0 {
			o.waiting[local] = 0
			o.sockets[local].sendBatch(b, uint16(local+1), o)
		}
	}
	o.mux.counters.addTx(tx)
}

func (o *outlet) mark(b *Batch) {
	if dests := &o.mux.dests; dests.n.Load() > 0 {
		dests.mark(b, o.marks, o.mux.now())
		o.marked = true
	} else if o.marked {
		clear(o.marks)
		o.marked = false
	}
}

// due reports whether packet i of b is to be sent from a local address.
func (o *outlet) due(b *Batch, i int, local uint16) bool {
	to := &b.to[i]
	return to.local == local && !to.TCP() && o.marks[i]&markPaused == 0
}

// sent counts one message.
func (o *outlet) sent(to *Path, packets, bytes int, marks mark) {
	o.tx.messages++
	o.tx.packets += uint64(packets)
	o.tx.bytes += uint64(bytes)
	if marks&markFailing != 0 {
		o.mux.dests.sent(*to)
	}
}

// failed counts one message that could not be sent.
func (o *outlet) failed(to *Path, why Drop, packets int) {
	o.tx.drop(why, packets)
	if why.ofDestination() {
		o.mux.dests.failed(*to, why, packets, o.mux.now())
	}
}
