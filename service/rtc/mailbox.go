package rtc

import "sync"

// maxPosted bounds what waits in a mailbox. A session that falls so far behind is closed: a
// message is never dropped in silence.
const maxPosted = 4096

// mailbox carries functions to a session's loop. Posting never blocks.
type mailbox struct {
	wake chan struct{} // one slot; has something when there is something to look at

	mu     sync.Mutex
	posted []func()
	closed bool
}

func newMailbox() mailbox { return mailbox{wake: make(chan struct{}, 1)} }

// post queues f and reports whether there was room. After close it does nothing, which is no
// lack of room.
func (m *mailbox) post(f func()) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return true
	}
	if len(m.posted) >= maxPosted {
		m.mu.Unlock()
		return false
	}
	m.posted = append(m.posted, f)
	m.mu.Unlock()
	m.nudge()
	return true
}

// nudge makes the loop look without a message.
func (m *mailbox) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns what was posted since the last take.
func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	posted := m.posted
	m.posted = nil
	return posted
}

// waiting returns how many functions wait.
func (m *mailbox) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.posted)
}

// close drops what waits and all that will be posted.
func (m *mailbox) close() {
	m.mu.Lock()
	m.posted, m.closed = nil, true
	m.mu.Unlock()
	m.nudge()
}
