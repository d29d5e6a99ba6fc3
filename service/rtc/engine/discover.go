package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v4"
)

// DiscoverTime bounds the whole of Discover. A server whose STUN server is dead is to be ready within
// 5 s, and there is more to do than this.
const DiscoverTime = 4 * time.Second

// Discover asks the STUN server from each of the sockets, all at once, under which address it is
// seen (RFC 8489). Addresses for which there was no answer are left out and told in the error.
// The sockets must not be read by anybody else meanwhile.
func Discover(ctx context.Context, conns []net.PacketConn, server net.Addr) (map[netip.Addr]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, DiscoverTime)
	defer cancel()
	var (
		mu    sync.Mutex
		found = make(map[netip.Addr]netip.Addr)
		fault error
		wg    sync.WaitGroup
	)
	for _, conn := range conns {
		wg.Go(func() {
			addr, err := reflexive(ctx, conn, server)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fault = fmt.Errorf("ask %v from %v: %w", server, conn.LocalAddr(), err)
				return
			}
			if local, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
				found[local.Addr().Unmap()] = addr
			}
		})
	}
	wg.Wait()
	return found, fault
}

// reflexive does one binding transaction, repeated until it is answered or ctx ends.
func reflexive(ctx context.Context, conn net.PacketConn, server net.Addr) (netip.Addr, error) {
	request, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.SetReadDeadline(time.Time{}) //nolint:errcheck // the mux sets its own
	buf := make([]byte, 1500)
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		if err := ctx.Err(); err != nil {
			return netip.Addr{}, err
		}
		if _, err := conn.WriteTo(request.Raw, server); err != nil {
			return netip.Addr{}, err
		}
		deadline := time.Now().Add(wait)
		if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
			deadline = end
		}
		if err := conn.SetReadDeadline(deadline); err != nil {
			return netip.Addr{}, err
		}
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				break // most likely the deadline: ask again
			}
			response := &stun.Message{Raw: buf[:n]}
			if response.Decode() != nil || response.TransactionID != request.TransactionID {
				continue
			}
			var mapped stun.XORMappedAddress
			if err := mapped.GetFrom(response); err != nil {
				return netip.Addr{}, err
			}
			addr, ok := netip.AddrFromSlice(mapped.IP)
			if !ok {
				return netip.Addr{}, fmt.Errorf("mapped address %v", mapped.IP)
			}
			return addr.Unmap(), nil
		}
	}
}
