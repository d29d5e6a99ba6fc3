package doctor

import (
	"context"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"
)

// A Host is a machine as checks see it. Tests replace parts of it.
type Host struct {
	Now      func() time.Time
	Stat     func(path string) (fs.FileInfo, error)
	ReadDir  func(path string) ([]fs.DirEntry, error)
	ReadFile func(path string) ([]byte, error) // of the disk, /proc or /sys
	Volume   func(path string) (Volume, error)
	Writable func(path string) error // whether this user may write to a folder

	// Addresses lists the addresses of the interfaces that are up.
	Addresses func() ([]local, error)
	// Bind listens on an address and stops at once. Its errors wrap syscall.EADDRINUSE and the like.
	Bind func(ctx context.Context, network, address string) error
	// Holder says which process has a port; ok is false if that cannot be seen.
	Holder func(network string, port uint16) (p Process, ok bool)
	// Buffers asks for buffers of a UDP socket as the server does, and returns what was granted.
	Buffers func(want int) (read, write int, err error)

	// Synchronised reports what the kernel says about its clock.
	Synchronised func() (bool, error)
	OpenFiles    func() (uint64, error) // how many the process may have
	GoMemory     func() int64           // GOMEMLIMIT in bytes; math.MaxInt64 if there is none

	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Volume is what a folder is on.
type Volume struct {
	Type string // "tmpfs", "ramfs", or anything else
	Free uint64 // bytes for who is not root
}

func (v Volume) inMemory() bool { return v.Type == "tmpfs" || v.Type == "ramfs" }

// A Process is one that has a port.
type Process struct {
	PID  int
	Name string
}

// local is one address of the machine.
type local struct {
	addr  netip.Addr
	iface string
}

// ThisHost is the machine this runs on.
func ThisHost() *Host {
	var dialer net.Dialer
	return &Host{
		Now: time.Now, Stat: os.Stat, ReadDir: os.ReadDir, ReadFile: os.ReadFile,
		Volume: volumeOf, Writable: writable,
		Addresses: localAddresses, Bind: bind, Holder: holderOf, Buffers: grantedBuffers,
		Synchronised: synchronised, OpenFiles: openFiles,
		GoMemory: func() int64 { return debug.SetMemoryLimit(-1) },
		Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
		Dial: dialer.DialContext,
	}
}

func localAddresses() ([]local, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []local
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, local{p.Addr().Unmap().WithZone(""), i.Name})
			}
		}
	}
	return out, nil
}

// bind listens for a moment, as the server would.
func bind(ctx context.Context, network, address string) error {
	var lc net.ListenConfig
	if network == "udp" {
		c, err := lc.ListenPacket(ctx, network, address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return err
	}
	return l.Close()
}
