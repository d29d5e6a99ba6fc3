package servicetest

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
)

// Deafen makes a black hole of the link: from now on the kernel drops what comes for it,
// unacknowledged. What came before is read first.
func (l *Link) Deafen(t testing.TB) {
	t.Helper()
	dropAll := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	l.control(t, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &dropAll[0]})
	})
	end := time.Now().Add(patience)
	for unread := 1; unread > 0; {
		l.control(t, func(fd int) (err error) {
			unread, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
			return err
		})
		select {
		case <-l.Done:
			return
		case <-time.After(time.Millisecond): // the kernel has no event for it
		}
		if time.Now().After(end) {
			t.Fatal("receive buffer does not drain")
		}
	}
	// A frame of our own carries the acknowledgement of what was read, which the kernel may still
	// delay: nobody can know of bytes that were read and not acknowledged.
	_ = l.ws.WriteControl(websocket.PongMessage, nil, time.Now().Add(patience))
}

func (l *Link) control(t testing.TB, f func(fd int) error) {
	t.Helper()
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
}

// Reset breaks the link with an RST, so that what the kernel has not acknowledged is lost.
func (l *Link) Reset(t testing.TB) {
	t.Helper()
	l.Deafen(t)
	_ = l.tcp.SetLinger(0)
	l.Close()
}
