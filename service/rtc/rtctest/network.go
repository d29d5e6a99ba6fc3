package rtctest

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/vnet"

	"rtcd/service/rtc"
)

// vnetMu is held for the constructors of vnet, which count in a variable of the package.
var vnetMu sync.Mutex

// Network is a virtual network for UDP: nothing of it reaches the kernel's.
type Network struct {
	router *vnet.Router
	hosts  int
	seed   uint64 // of the links; 0: not drawn yet
}

// NewNetwork starts a network that ends with the test.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	vnetMu.Lock()
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.0.0.0/16", LoggerFactory: quietLogs{}})
	vnetMu.Unlock()
	if err != nil {
		t.Fatalf("make network: %v", err)
	}
	if err := router.Start(); err != nil {
		t.Fatalf("start network: %v", err)
	}
	t.Cleanup(func() {
		if err := router.Stop(); err != nil {
			t.Errorf("stop network: %v", err)
		}
	})
	return &Network{router: router}
}

// Host adds a host with an address of its own. It is not for concurrent use.
func (n *Network) Host(t testing.TB) (transport.Net, netip.Addr) {
	t.Helper()
	n.hosts++
	ip := fmt.Sprintf("10.0.%d.%d", n.hosts/200, 1+n.hosts%200)
	vnetMu.Lock()
	host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}})
	vnetMu.Unlock()
	if err != nil {
		t.Fatalf("make host: %v", err)
	}
	if err := n.router.AddNet(host); err != nil {
		t.Fatalf("add host: %v", err)
	}
	return host, netip.MustParseAddr(ip)
}

// Serve puts a server into the network: a change for NewBackend.
func (n *Network) Serve(t testing.TB) func(*rtc.Config) {
	t.Helper()
	host, addr := n.Host(t)
	return func(cfg *rtc.Config) {
		cfg.UDPAddrs = []netip.AddrPort{netip.AddrPortFrom(addr, 8443)}
		cfg.TCPAddrs = nil
		cfg.Engine.Net, cfg.Engine.Local = host, []netip.Addr{addr}
	}
}
