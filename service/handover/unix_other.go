//go:build !linux

package handover

import (
	"errors"
	"net"
)

var errPlatform = errors.New("handing over needs Linux")

func peerUID(*net.UnixConn) (int, error) { return 0, errPlatform }

func rights([]int) []byte { return nil }

func descriptors([]byte) ([]int, error) { return nil, errPlatform }

func duplicate(uintptr) (int, error) { return 0, errPlatform }
