package engine

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
)

// aliasListener accepts connections of ICE-TCP for agents that may have aliases.
type aliasListener struct {
	net.Listener
	aliases *aliases
}

// Accept waits for a connection.
func (l *aliasListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.aliases.some.Load() == 0 {
		return conn, err
	}
	return &aliasConn{Conn: conn, aliases: l.aliases}, nil
}

// aliasConn is a connection of frames (RFC 4571) whose first says by its user name whether they are for
// an alias. Then requests and responses are translated.
type aliasConn struct {
	net.Conn
	aliases *aliases
	via     atomic.Pointer[alias]

	// The reader's.
	decided bool
	frame   []byte // what is left of it to read
}

// Read reads what is next of the frames, with their lengths.
func (c *aliasConn) Read(p []byte) (int, error) {
	if len(c.frame) == 0 {
		if c.decided && c.via.Load() == nil {
			return c.Conn.Read(p)
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.frame)
	c.frame = c.frame[n:]
	return n, nil
}

// next reads a frame.
func (c *aliasConn) next() error {
	var length [2]byte
	if _, err := io.ReadFull(c.Conn, length[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		return err
	}
	a := c.via.Load()
	if !c.decided {
		c.decided = true
		if a = c.aliases.find(userName(b)); a != nil {
			c.via.Store(a)
		}
	}
	if a != nil && userName(b) != nil {
		var err error
		if b, err = a.awaited(b); err != nil {
			return err
		}
	}
	c.frame = binary.BigEndian.AppendUint16(c.frame[:0], uint16(len(b)))
	c.frame = append(c.frame, b...)
	return nil
}

// awaited translates a request for the agent, when that is there.
func (a *alias) awaited(b []byte) ([]byte, error) {
	for {
		request := a.authentic(b)
		if request == nil {
			return b, nil // nobody goes by that name
		}
		translated, _, ready := a.in(request)
		if ready {
			return translated, nil
		}
		if err := a.link.awaitReady(); err != nil {
			return nil, err
		}
	}
}

// Write writes one whole frame.
func (c *aliasConn) Write(frame []byte) (int, error) {
	a := c.via.Load()
	if a == nil || len(frame) < 2+stunHeaderLen || frame[2] > 3 {
		return c.Conn.Write(frame)
	}
	b := a.link.out(a, frame[2:])
	if b == nil {
		return len(frame), nil
	}
	if _, err := c.Conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		return 0, err
	}
	return len(frame), nil
}
