package netio

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxDestinations = 4096                   // remembered; an arbitrary one makes room
	forgetErrors    = time.Minute            // without another error
	failuresInRow   = 16                     // messages, before a destination is paused
	firstPause      = 100 * time.Millisecond // doubled for each failure after a pause
	longestPause    = 2 * time.Second
	wholeFor        = time.Minute // how long a destination gets no segmented messages
)

// destinations remembers where sending failed. A destination to which message after message
// fails is paused: each of them would cost a system call, and part a batch that goes out with
// one otherwise. Then one flush tries again, and so does every packet of ICE, which is not
// paused: the first that succeeds ends it. Where the kernel refuses segmented messages, packets
// go out one by one for a while.
//
// It is shared by all sockets of a mux. Its memory is bounded, and while nothing fails it costs
// an atomic load for each flush.
type destinations struct {
	n atomic.Int32 // len(known)

	mu    sync.Mutex
	known map[Path]destination // guarded by mu
}

type destination struct {
	errors   uint64        // packets that could not be sent
	last     Drop          // why
	at       time.Duration // Mux.now of the latest error
	failures int           // messages in a row
	pause    time.Duration // length of the latest pause since a message took
	until    time.Duration // Mux.now at which it ends
	whole    time.Duration // Mux.now until which there are no segmented messages
}

// A mark says how a packet is to be treated for what happened to others before it.
type mark uint8

const (
	markFailing mark = 1 << iota // the latest message failed: tell if this one does not
	markPaused                   // do not send
	markWhole                    // send by itself
)

// ofDestination reports whether a reason lies with the destination or the way to it, not with us.
func (d Drop) ofDestination() bool {
	switch d {
	case DropUnreachable, DropForbidden, DropTooLarge, DropSendError:
		return true
	default:
		return false
	}
}

// mark writes the marks of the packets of b.
func (d *destinations) mark(b *Batch, marks []mark, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var last Path
	var m mark
	for i, to := range b.to[:b.n] {
		if to != last {
			known, ok := d.known[to]
			last, m = to, 0
			if ok {
				m = known.mark(now)
			}
		}
		marks[i] = m
	}
}

func (d *destination) mark(now time.Duration) (m mark) {
	if d.failures > 0 {
		m |= markFailing
	}
	if now < d.until {
		m |= markPaused
	}
	if now < d.whole {
		m |= markWhole
	}
	return m
}

// failed notes that one message of so many packets could not be sent.
func (d *destinations) failed(to Path, why Drop, packets int, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.known[to]
	known.errors += uint64(packets)
	known.last, known.at = why, now
	known.failures++
	if known.failures >= failuresInRow && now >= known.until {
		known.pause = min(max(firstPause, 2*known.pause), longestPause)
		known.until = now + known.pause
	}
	d.keepLocked(to, known)
}

// refusedSegments notes that packets went out one by one that did not as one message.
func (d *destinations) refusedSegments(to Path, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.known[to]
	known.at, known.whole = now, now+wholeFor
	d.keepLocked(to, known)
}

func (d *destinations) keepLocked(to Path, known destination) {
	if d.known == nil {
		d.known = make(map[Path]destination)
	}
	d.known[to] = known
	for other := range d.known {
		if len(d.known) <= maxDestinations {
			break
		}
		if other != to {
			delete(d.known, other)
		}
	}
	d.n.Store(int32(len(d.known)))
}

// sent notes that a message took.
func (d *destinations) sent(to Path) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.known[to]; ok && known.failures > 0 {
		known.failures, known.pause, known.until = 0, 0, 0
		d.known[to] = known
	}
}

// forget drops what is over. It is called now and then; nothing but memory depends on it.
func (d *destinations) forget(now time.Duration) {
	if d.n.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for to, known := range d.known {
		if now >= known.at+forgetErrors && now >= known.until && now >= known.whole {
			delete(d.known, to)
		}
	}
	d.n.Store(int32(len(d.known)))
}

// A SendFault is what went wrong with sending to one destination.
type SendFault struct {
	To          Path
	Packets     uint64        // that could not be sent; those that were not tried are not among them
	Last        Drop          // why not, the latest time; meaningless if there are none
	Paused      time.Duration // until media is tried again; 0: it is
	Unsegmented bool          // segmented messages do not get there, single packets do
}

// faults returns what is known at a time, in no order.
func (d *destinations) faults(now time.Duration) []SendFault {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]SendFault, 0, len(d.known))
	for to, known := range d.known {
		all = append(all, SendFault{
			To: to, Packets: known.errors, Last: known.last,
			Paused: max(0, known.until-now), Unsegmented: now < known.whole,
		})
	}
	return all
}

// counts returns how many destinations are failing, paused, and without segmented messages.
func (d *destinations) counts(now time.Duration) (failing, paused, whole int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, known := range d.known {
		m := known.mark(now)
		failing += int(m & markFailing)
		paused += int(m & markPaused / markPaused)
		whole += int(m & markWhole / markWhole)
	}
	return failing, paused, whole
}
