package netio

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// wantedBuffer is asked for each UDP socket and direction; the kernel may grant less.
const wantedBuffer = 16 << 20

// sendErrorReason sorts the errors of sending.
func sendErrorReason(err error) Drop {
	var errno syscall.Errno
	switch {
	case errors.Is(err, net.ErrClosed):
		return DropNoPath
	case errors.Is(err, os.ErrDeadlineExceeded): // no room in time
		return DropSendBuffer
	case !errors.As(err, &errno):
		return DropSendError
	}
	return errnoReason(errno)
}

func errnoReason(errno syscall.Errno) Drop {
	switch errno {
	case syscall.EAGAIN, syscall.ENOBUFS:
		return DropSendBuffer
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN:
		return DropUnreachable
	case syscall.EPERM, syscall.EACCES:
		return DropForbidden
	case syscall.EMSGSIZE:
		return DropTooLarge
	default:
		return DropSendError
	}
}
