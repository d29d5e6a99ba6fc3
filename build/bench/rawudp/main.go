//go:build linux && (amd64 || arm64)

// Command rawudp is the floor of the benchmark: what the kernel alone costs. Each datagram that
// comes goes out to a fixed list of addresses, as it is, by one thread that does nothing else: no
// encryption, no parsing, no lock.
//
//	-mode sendto   recvfrom, then one sendto for each destination
//	-mode gso      recvmmsg, then sendmmsg; runs to one destination in one message (UDP_SEGMENT)
//
// The destinations come as JSON on standard input. It is to be run with GOMAXPROCS=1, GOGC=off and
// GODEBUG=asyncpreemptoff=1: the thread waits in the kernel, and Go's runtime is to leave it there.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	mode := flag.String("mode", "gso", "sendto or gso")
	flag.Parse()
	if err := run(*mode); err != nil {
		fmt.Fprintln(os.Stderr, "rawudp:", err)
		os.Exit(1)
	}
}

// routes are the destinations of what comes from an address.
type routes map[netip.AddrPort][]unix.RawSockaddrInet4

func run(mode string) error {
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 4<<20); err != nil {
			return fmt.Errorf("set a buffer: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("bind the socket: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("ask for the socket's address: %w", err)
	}
	fmt.Printf("127.0.0.1:%d\n", name.(*unix.SockaddrInet4).Port)
	var config map[string][]string
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		return fmt.Errorf("read the destinations: %w", err)
	}
	to := make(routes)
	for from, addrs := range config {
		key, err := netip.ParseAddrPort(from)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			addr, err := netip.ParseAddrPort(a)
			if err != nil {
				return err
			}
			to[key] = append(to[key], sockaddr(addr))
		}
	}
	switch mode {
	case "sendto":
		return sendto(fd, to)
	case "gso":
		return newBatch(fd, to).run()
	}
	return fmt.Errorf("mode %q: not known", mode)
}

func sockaddr(a netip.AddrPort) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: a.Port()<<8 | a.Port()>>8, Addr: a.Addr().As4()}
}

func addrPort(a *unix.RawSockaddrInet4) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), a.Port<<8|a.Port>>8)
}

// sendto forwards one datagram at a time.
func sendto(fd int, to routes) error {
	var b [2048]byte
	var from unix.RawSockaddrInet4
	for {
		size := uint32(unsafe.Sizeof(from))
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(len(b)), 0,
			uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("recvfrom: %w", errno)
		}
		dests := to[addrPort(&from)]
		for i := range dests {
			// What is not sent is missing in the count of what arrived.
			_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b)), n, unix.MSG_DONTWAIT,
				uintptr(unsafe.Pointer(&dests[i])), unsafe.Sizeof(dests[i]))
		}
	}
}
