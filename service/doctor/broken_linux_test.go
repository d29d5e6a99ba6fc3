package doctor

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rtcd/config"
)

type ctx = context.Context

// A broken set-up is a good one with one thing wrong.
type broken struct {
	name string
	make func(t *testing.T, s *setup)
	want string // the finding, and there is no other
	says string // part of what was seen
	real bool   // nothing of the machine was made up for it
}

// certificate replaces that of the set-up.
func certificate(from, to time.Duration) func(*testing.T, *setup) {
	return func(t *testing.T, s *setup) {
		s.Config.API.HTTP.TLS.CertFile, s.Config.API.HTTP.TLS.CertKey = newIssuer(t).issue(t, newKey(t, elliptic.P256()),
			time.Now().Add(from), time.Now().Add(to), "rtcd.example.com")
	}
}

// listenTCP takes a port for the test.
func listenTCP(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func answersUDP(t *testing.T, answer func([]byte) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if a := answer(b[:n]); a != nil {
				_, _ = c.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return c.LocalAddr().String()
}

// ntp is a server whose clock is off.
func ntp(t *testing.T, off time.Duration) string {
	return answersUDP(t, func(q []byte) []byte {
		a := make([]byte, 48)
		a[0], a[1] = 4<<3|4, 2
		copy(a[24:32], q[40:48])
		now := time.Now().Add(off)
		for _, at := range []int{32, 40} {
			since := now.Sub(ntpEpoch)
			binary.BigEndian.PutUint32(a[at:], uint32(since/time.Second))
			binary.BigEndian.PutUint32(a[at+4:], uint32(uint64(since%time.Second)<<32/uint64(time.Second)))
		}
		return a
	})
}

func stun(urls ...string) []config.ICEServer { return []config.ICEServer{{URLs: urls}} }

func refusing(errno syscall.Errno, which string) func(ctx, string, string) error {
	return func(_ ctx, _, address string) error {
		if address == which {
			return &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)}
		}
		return nil
	}
}

// unused returns an address on which nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l := listenTCP(t, "127.0.0.1:0")
	_ = l.Close()
	return l.Addr().String()
}

var brokenSetups = []broken{
	// The store.
	{"store on tmpfs", func(t *testing.T, s *setup) {
		dir, err := os.MkdirTemp("/dev/shm", "rtcd-doctor-")
		if err != nil {
			t.Skipf("NO /dev/shm HERE: %v", err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		s.Config.Store.DataSource = filepath.Join(dir, "data")
	}, storeOnTmpfs, "on tmpfs", true},
	{"store that everybody may write to", func(t *testing.T, s *setup) {
		chmod(t, s.Config.Store.DataSource, 0o702)
	}, storeWorldWritable, "drwx----w-", true},
	{"folder above that everybody may write to", func(t *testing.T, s *setup) {
		chmod(t, filepath.Dir(s.Config.Store.DataSource), 0o777)
	}, storeParentOpen, "drwxrwxrwx", true},
	{"folder above that everybody may write to, store not made yet", func(t *testing.T, s *setup) {
		dir := filepath.Dir(s.Config.Store.DataSource)
		s.Config.Store.DataSource = filepath.Join(dir, "a", "b")
		chmod(t, dir, 0o777)
	}, storeParentOpen, "drwxrwxrwx", true},
	{"files of the store that everybody may read", func(t *testing.T, s *setup) {
		for _, dir := range []string{"badger", "badger/db"} {
			path := filepath.Join(s.Config.Store.DataSource, dir)
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			chmod(t, path, 0o755)
		}
		path := filepath.Join(s.Config.Store.DataSource, "badger/db/000001.vlog")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		chmod(t, path, 0o644)
		chmod(t, s.Config.Store.DataSource, 0o755)
	}, storeWorldReadable, "000001.vlog", true},
	{"volume nearly full", func(t *testing.T, s *setup) {
		v, err := volumeOf(s.Config.Store.DataSource)
		if err != nil {
			t.Fatal(err)
		}
		s.Config.Store.MinFreeMiB = int(v.Free>>20) / 2
	}, storeLowSpace, "MiB free", true},
	{"volume full", func(t *testing.T, s *setup) {
		s.Host.Volume = func(string) (Volume, error) { return Volume{Type: "ext4", Free: 10 << 20}, nil }
	}, storeNoSpace, "10 MiB free", false},
	{"store of another user", func(t *testing.T, s *setup) {
		s.Host.Writable = func(string) error { return fs.ErrPermission }
	}, storeNotWritable, "permission denied", false},

	{"audit record on tmpfs", func(t *testing.T, s *setup) {
		dir, err := os.MkdirTemp("/dev/shm", "rtcd-doctor-")
		if err != nil {
			t.Skipf("NO /dev/shm HERE: %v", err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		s.Config.Audit.Enable, s.Config.Audit.Dir = "on", filepath.Join(dir, "audit")
	}, recordsOnTmpfs, "audit.dir", true},
	{"events on tmpfs", func(t *testing.T, s *setup) {
		volume, dir := s.Host.Volume, filepath.Join(filepath.Dir(s.Config.Store.DataSource), "events")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.Config.Events.Dir = dir
		s.Host.Volume = func(path string) (Volume, error) {
			if path == dir {
				return Volume{Type: "ramfs"}, nil
			}
			return volume(path)
		}
	}, recordsOnTmpfs, "ramfs", false},

	// Ports.
	{"API port taken", func(t *testing.T, s *setup) { listenTCP(t, s.Config.API.HTTP.ListenAddress) }, apiPortTaken, "by process " + strconv.Itoa(os.Getpid()), true},
	{"API port taken by a web server", func(t *testing.T, s *setup) {
		s.Config.API.HTTP.TLS = config.TLS{ClientAuth: "none", ClientCertBind: "san"}
		web(t, s.Config.API.HTTP.ListenAddress, "<html>")
	}, apiPortTaken, "doctor.test", true},
	{"admin port taken", func(t *testing.T, s *setup) { listenTCP(t, s.Config.API.Admin.ListenAddress) }, adminPortTaken, "by process", true},
	{"media port taken, TCP", func(t *testing.T, s *setup) {
		listenTCP(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Config.RTC.ICEPortTCP)))
	}, mediaPortTaken, "/tcp is taken, by process", true},
	{"media port taken, UDP", func(t *testing.T, s *setup) {
		c, err := net.ListenPacket("udp", net.JoinHostPort("0.0.0.0", strconv.Itoa(s.Config.RTC.ICEPortUDP)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}, mediaPortTaken, "/udp is taken, by process", true},
	{"media on an address of another machine", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEAddressUDP = "127.0.0.1,203.0.113.99"
	}, addressNotLocal, "203.0.113.99", true},
	{"API on an address of another machine", func(t *testing.T, s *setup) {
		s.Config.API.HTTP.ListenAddress = "203.0.113.99:8045"
		s.Config.API.HTTP.TLS.CertFile, s.Config.API.HTTP.TLS.CertKey = "", ""
		s.Config.API.HTTP.TLS.Enable = false
		s.Config.API.HTTP.TrustedProxies = []string{"203.0.113.1"}
	}, addressNotLocal, "api.http.listen_address", true},
	{"port that needs a right", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEPortTCP = 443
		s.Host.Bind = refusing(syscall.EACCES, "127.0.0.1:443")
	}, portPrivileged, "127.0.0.1:443/tcp", false},
	{"server that runs", func(t *testing.T, s *setup) {
		s.Config.API.HTTP.TLS = config.TLS{ClientAuth: "none", ClientCertBind: "san"}
		web(t, s.Config.API.HTTP.ListenAddress, `{"buildVersion":"v1.3.0","goVersion":"go1.26"}`)
		listenTCP(t, s.Config.API.Admin.ListenAddress)
	}, serverRunning, "v1.3.0", true},

	// What end users are told.
	{"candidate that only exists inside a container", func(t *testing.T, s *setup) {
		pod(s, "172.17.0.2")
		s.Config.RTC.ICEHostOverride = ""
	}, candidateInContainer, "172.17.0.2", false},
	{"candidate of a pod", func(t *testing.T, s *setup) {
		pod(s, "100.64.3.4")
		s.have("/proc/1/cgroup", "0::/kubepods/besteffort/pod1\n")
		s.Config.RTC.ICEHostOverride = ""
	}, candidateInContainer, "100.64.3.4", false},
	{"container with the network of the host", func(t *testing.T, s *setup) {
		pod(s, "10.1.2.3")
		s.have("/sys/class/net/eth7/iflink", "2\n", "/sys/class/net/eth7/ifindex", "2\n")
		s.Config.RTC.ICEHostOverride = ""
	}, candidatePrivate, "10.1.2.3", false},
	{"loopback alone", func(t *testing.T, s *setup) { s.Config.RTC.ICEHostOverride = "" }, mediaLoopback, "127.0.0.1", true},
	{"IPv6 alone", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEAddressUDP, s.Config.RTC.ICEAddressTCP, s.Config.RTC.EnableIPv6 = "2001:db8::5", "2001:db8::5", true
		s.Config.RTC.ICEHostOverride = ""
		s.addresses("127.0.0.1", "2001:db8::5")
		s.have("/proc/net/if_inet6", "x", "/proc/net/ipv6_route", route6, "/proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n")
		s.bound()
	}, mediaIPv6Only, "2001:db8::5", false},
	{"override that does not resolve", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEHostOverride = "rtcd.example.com"
		s.Host.Lookup = func(_ ctx, name string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
	}, overrideUnresolvable, "no such host", false},
	{"override that resolves to IPv6 alone", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEHostOverride = "rtcd.example.com"
		s.Host.Lookup = func(ctx, string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil }
	}, overrideUnresolvable, "no address of a family", false},
	{"override that resolves to loopback", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEHostOverride = "localhost"
		s.Config.API.HTTP.TLS.CertFile, s.Config.API.HTTP.TLS.CertKey = newIssuer(t).issue(t, newKey(t, elliptic.P256()),
			time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour), "localhost")
	}, overrideUnreachable, "127.0.0.1", true},
	{"override to loopback", func(t *testing.T, s *setup) { s.Config.RTC.ICEHostOverride = "127.0.0.1" }, overrideUnreachable, "127.0.0.1", true},
	{"private override on a public machine", func(t *testing.T, s *setup) {
		s.addresses("127.0.0.1", "198.51.100.8")
		s.Config.RTC.ICEHostOverride = "10.0.0.5"
	}, overridePrivate, "198.51.100.8", false},
	{"one private pair", func(t *testing.T, s *setup) {
		s.addresses("127.0.0.1", "10.0.0.5", "10.0.0.6")
		s.Config.RTC.ICEAddressUDP, s.Config.RTC.ICEAddressTCP = "", ""
		s.Config.RTC.ICEHostOverride = "203.0.113.5/10.0.0.5,192.168.1.6/10.0.0.6"
		s.bound()
	}, overridePrivate, "192.168.1.6", false},
	{"pair of another machine", func(t *testing.T, s *setup) { s.Config.RTC.ICEHostOverride = "203.0.113.5/10.99.0.5" }, overrideNotLocal, "10.99.0.5", true},
	{"override of the other family", func(t *testing.T, s *setup) { s.Config.RTC.ICEHostOverride = "2001:db8::7" }, overrideUnused, "2001:db8::7", true},
	{"ports of other machines", func(t *testing.T, s *setup) { s.Config.RTC.ICEHostPortOverride = "10.99.0.5/8443,10.99.0.6/8444" }, overridePort, "10.99.0.5/8443", true},

	// IPv6.
	{"IPv6 off in the kernel", func(t *testing.T, s *setup) {
		v6(s)
		s.have("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1\n")
	}, ipv6Disabled, "disable_ipv6 = 1", false},
	{"kernel without IPv6", func(t *testing.T, s *setup) { v6(s); s.have("/proc/net/if_inet6", "") }, ipv6Disabled, "no IPv6", false},
	{"link-local IPv6 alone", func(t *testing.T, s *setup) { v6(s, "::1", "fe80::1") }, ipv6LinkLocal, "fe80::1", false},
	{"no IPv6 address", func(t *testing.T, s *setup) { v6(s, "::1") }, ipv6NoAddress, "no interface", false},
	{"no IPv6 route", func(t *testing.T, s *setup) {
		v6(s, "2001:db8::5")
		s.have("/proc/net/ipv6_route", strings.Replace(route6, "eth7", "lo", 1))
	}, ipv6NoRoute, "2001:db8::5", false},

	// The certificate.
	{"expired certificate", certificate(-48*time.Hour, -time.Hour), certExpired, "ended at", true},
	{"certificate that expires soon", certificate(-48*time.Hour, 5*24*time.Hour+time.Hour), certExpiring, "in 5 days", true},
	{"certificate of tomorrow", certificate(24*time.Hour, 48*24*time.Hour), certNotYet, "begins at", true},
	{"key of another certificate", func(t *testing.T, s *setup) {
		_, s.Config.API.HTTP.TLS.CertKey = newIssuer(t).issue(t, newKey(t, elliptic.P256()), time.Now(), time.Now().Add(time.Hour))
	}, certKeyMismatch, "not the key", true},
	{"no certificate", func(t *testing.T, s *setup) { s.Config.API.HTTP.TLS.CertFile = "/none.pem" }, certUnreadable, "/none.pem", true},
	{"certificate of another name", func(t *testing.T, s *setup) {
		s.Config.RTC.ICEHostOverride = "calls.example.com"
		s.Host.Lookup = func(ctx, string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("203.0.113.7")}, nil }
	}, certName, "rtcd.example.com", true},
	{"short RSA key", func(t *testing.T, s *setup) {
		t.Setenv("GODEBUG", "rsa1024min=0")
		key, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		s.Config.API.HTTP.TLS.CertFile, s.Config.API.HTTP.TLS.CertKey = newIssuer(t).issue(t, key, time.Now().Add(-time.Hour), time.Now().Add(999*time.Hour))
	}, certWeak, "1024 bits", true},
	{"short curve", func(t *testing.T, s *setup) {
		s.Config.API.HTTP.TLS.CertFile, s.Config.API.HTTP.TLS.CertKey = newIssuer(t).issue(t, newKey(t, elliptic.P224()),
			time.Now().Add(-time.Hour), time.Now().Add(999*time.Hour))
	}, certWeak, "224 bits", true},

	// What is open to whom.
	{"self-registration for everybody", func(t *testing.T, s *setup) {
		publicAPI(s)
		s.Config.API.Security.AllowSelfRegistration = true
	}, selfRegistration, ":", true},
	{"plain HTTP for everybody", func(t *testing.T, s *setup) {
		publicAPI(s)
		s.Config.API.HTTP.TLS.Enable = false
	}, plainHTTP, "tls.enable = false", true},
	{"admin listener for everybody", func(t *testing.T, s *setup) {
		s.Config.API.Admin.ListenAddress = strings.Replace(s.Config.API.Admin.ListenAddress, "127.0.0.1", "", 1)
	}, adminPublic, "tls.enable = false", true},
	{"sample for a secret", func(t *testing.T, s *setup) { s.Config.API.Security.AdminSecretKey = "changeme" }, adminSecretWeak, "well-known", true},
	{"short secret", func(t *testing.T, s *setup) { s.Config.API.Security.AdminSecretKey = config.Secret(adminKey[:12]) }, adminSecretWeak, "shorter than", true},

	// The configuration itself.
	{"unknown key", func(t *testing.T, s *setup) { s.env = []string{"RTCD_RTC_ICEPORTUPD=1"} }, configWarning, "RTCD_RTC_ICEPORTUPD", true},
	{"value that breaks a rule", func(t *testing.T, s *setup) { s.Config.RTC.NACKBufferSize = 33 }, configInvalid, "nack_buffer_size", true},
	{"file that is no TOML", func(t *testing.T, s *setup) { s.toml = "\n[rtc\n" }, configInvalid, "config.toml", true},

	// The clock.
	{"clock that nobody sets", func(t *testing.T, s *setup) {
		s.Host.Synchronised = func() (bool, error) { return false, nil }
	}, clockUnsynchronised, "not synchronised", false},
	{"clock of 1970", func(t *testing.T, s *setup) {
		s.Host.Now = func() time.Time { return time.Unix(0, 0) }
		s.Config.API.HTTP.TLS = config.TLS{ClientAuth: "none", ClientCertBind: "san"}
	}, clockImplausible, "1970-01-01", false},
	{"clock a minute slow", func(t *testing.T, s *setup) { s.Online, s.NTP = true, ntp(t, time.Minute) }, clockOff, "-1m0s", true},
	{"NTP server that does not answer", func(t *testing.T, s *setup) { s.Online, s.NTP = true, unused(t) }, clockUnchecked, "refused", true},

	// What the machine gives.
	{"small socket buffers", func(t *testing.T, s *setup) {
		s.Host.Buffers = func(int) (int, int, error) { return 212_992, 212_992, nil }
	}, buffersSmall, "gets 208 KiB", false},
	{"few open files", func(t *testing.T, s *setup) { s.Host.OpenFiles = func() (uint64, error) { return 1024, nil } }, filesLow, "at most 1024", false},
	{"limits beyond the open files", func(t *testing.T, s *setup) {
		s.Config.RTC.Limits.TCPConnections = 1_000_000
		s.Host.OpenFiles = openFiles
	}, filesLow, "1000000", true},
	{"small table of connections", func(t *testing.T, s *setup) {
		s.have("/proc/sys/net/netfilter/nf_conntrack_max", "8192\n", "/proc/sys/net/netfilter/nf_conntrack_count", "12\n")
	}, conntrackSmall, "8192", false},
	{"full table of connections", func(t *testing.T, s *setup) {
		s.have("/proc/sys/net/netfilter/nf_conntrack_max", "262144\n", "/proc/sys/net/netfilter/nf_conntrack_count", "262000\n")
	}, conntrackFull, "262000", false},
	{"little memory", func(t *testing.T, s *setup) { s.have("/sys/fs/cgroup/memory.max", "134217728\n") }, memorySmall, "128 MiB", false},
	{"little memory, version 1", func(t *testing.T, s *setup) {
		s.have("/proc/self/cgroup", "4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n",
			"/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "134217728\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
	}, memorySmall, "128 MiB", false},
	{"memory limit that Go does not know", func(t *testing.T, s *setup) { s.have("/sys/fs/cgroup/memory.max", "1073741824\n") }, memoryGoUnset, "1024 MiB", false},
	{"GOMEMLIMIT beyond the limit", func(t *testing.T, s *setup) {
		s.have("/sys/fs/cgroup/memory.max", "1073741824\n")
		s.Host.GoMemory = func() int64 { return 2 << 30 }
	}, memoryGoLimit, "2048 MiB", false},
	{"GOMEMLIMIT too small", func(t *testing.T, s *setup) { s.Host.GoMemory = func() int64 { return 10 << 20 } }, memoryGoSmall, "10 MiB", false},
	{"half a CPU", func(t *testing.T, s *setup) {
		s.have("/proc/self/cgroup", "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n", "/sys/fs/cgroup/a/cpu.max", "50000 100000\n")
	}, cpuQuotaSmall, "0.50", false},
	{"half a CPU, version 1", func(t *testing.T, s *setup) {
		s.have("/proc/self/cgroup", "1:cpu,cpuacct:/x\n0::/\n",
			"/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n", "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
	}, cpuQuotaSmall, "0.50", false},

	// Others.
	{"STUN server that does not answer", func(t *testing.T, s *setup) {
		s.Online, s.Config.RTC.ICEHostOverride = true, ""
		s.Config.RTC.ICEServers = stun("stun:" + unused(t))
	}, stunUnreachable, "refused", true},
	{"audit sink that does not accept", func(t *testing.T, s *setup) {
		s.Online, s.Config.Audit.Enable, s.Config.Audit.Dir = true, "on", t.TempDir()
		s.Config.Audit.Sinks = []config.AuditSink{{Type: "syslog", Transport: "tcp", Address: unused(t)}}
	}, auditUnreachable, "refused", true},
	{"webhook that does not accept", func(t *testing.T, s *setup) {
		s.Online, s.Config.Events.Dir = true, filepath.Join(filepath.Dir(s.Config.Store.DataSource), "events")
		s.Config.Webhooks = []config.Webhook{{
			Client: "backend", URL: "https://" + unused(t) + "/path-that-is-secret", Secret: "Zk3vQ9sLx7Tb2WmYp5RcH8nDf4JgA6eU1oVi0K", AllowPrivate: true,
		}}
	}, hookUnreachable, "refused", true},
}

// route6 is a default route by way of eth7.
const route6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth7\n"

// v6 is a host with these addresses of IPv6, all of it in order.
func v6(s *setup, addresses ...string) {
	s.Config.RTC.EnableIPv6, s.Config.RTC.ICEAddressUDP, s.Config.RTC.ICEAddressTCP = true, "", ""
	s.addresses(append([]string{"127.0.0.1", "198.51.100.8"}, addresses...)...)
	s.have("/proc/net/if_inet6", "x", "/proc/net/ipv6_route", route6, "/proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n")
	s.bound()
}

// pod is the inside of a container with an address.
func pod(s *setup, address string) {
	s.addresses("127.0.0.1", address)
	s.Config.RTC.ICEAddressUDP, s.Config.RTC.ICEAddressTCP = "", ""
	s.have("/sys/class/net/eth7/iflink", "17\n", "/sys/class/net/eth7/ifindex", "2\n")
	stat := s.Host.Stat
	s.Host.Stat = func(path string) (fs.FileInfo, error) {
		if path == "/.dockerenv" {
			return stat("/")
		}
		return stat(path)
	}
	s.bound()
}

func publicAPI(s *setup) {
	s.Config.API.HTTP.ListenAddress = strings.Replace(s.Config.API.HTTP.ListenAddress, "127.0.0.1", "", 1)
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func web(t *testing.T, address, body string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
	_ = srv.Listener.Close()
	srv.Listener = listenTCP(t, address)
	srv.Start()
	t.Cleanup(srv.Close)
}

// TestGoodSetup: where nothing is wrong nothing is found, also with everybody asked who can be.
func TestGoodSetup(t *testing.T) {
	s := good(t)
	if found := s.examine(t); len(found) > 0 {
		t.Errorf("found\n%s", Text(found))
	}
	s = good(t)
	s.Online, s.NTP = true, ntp(t, 2*time.Second)
	s.Config.RTC.ICEServers = stun("stun:" + answersUDP(t, func(q []byte) []byte {
		a := append([]byte{1, 1, 0, 0}, q[4:20]...)
		return a
	}))
	s.addresses("127.0.0.1", "198.51.100.8")
	s.Config.RTC.ICEHostOverride = ""
	s.Config.Audit.Enable, s.Config.Audit.Dir = "on", t.TempDir()
	s.Config.Audit.Sinks = []config.AuditSink{{Type: "syslog", Transport: "tcp", Address: listenTCP(t, "127.0.0.1:0").Addr().String()}}
	s.Config.RTC.ICEAddressUDP, s.Config.RTC.ICEAddressTCP = "", ""
	s.bound()
	if found := s.examine(t); len(found) > 0 {
		t.Errorf("with all that can be: found\n%s", Text(found))
	}
}

// TestBrokenSetups: each thing that is wrong makes its own finding, and that alone.
func TestBrokenSetups(t *testing.T) {
	named := map[string]bool{}
	for _, b := range brokenSetups {
		named[b.want] = true
		t.Run(b.name, func(t *testing.T) {
			s := good(t)
			b.make(t, s)
			found := s.examine(t)
			if len(found) != 1 || found[0].ID != b.want || !strings.Contains(found[0].What, b.says) {
				t.Fatalf("want %s with %q, found\n%s", b.want, b.says, Text(found))
			}
			if Healthy(found) != (found[0].Severity == Info) {
				t.Errorf("healthy with\n%s", Text(found))
			}
			if strings.Contains(Text(found), adminKey) || strings.Contains(Text(found), "path-that-is-secret") {
				t.Error("a secret shows")
			}
		})
	}
	for _, id := range IDs() {
		if !named[id] {
			t.Errorf("no set-up yields %s", id)
		}
	}
	if len(brokenSetups) < 20 || len(named) < 20 {
		t.Errorf("%d set-ups, %d findings", len(brokenSetups), len(named))
	}
}

// TestUnreachable: an error of the host is no finding: what cannot be seen is not said to be wrong.
func TestUnreachable(t *testing.T) {
	s := good(t)
	none := errors.New("not to be seen")
	s.Host.Volume = func(string) (Volume, error) { return Volume{}, none }
	s.Host.Buffers = func(int) (int, int, error) { return 0, 0, none }
	s.Host.OpenFiles = func() (uint64, error) { return 0, none }
	s.Host.Synchronised = func() (bool, error) { return false, none }
	s.Host.Addresses = func() ([]local, error) { return nil, none }
	clear(s.files)
	for _, path := range []string{"/proc/self/cgroup", "/proc/sys/net/netfilter/nf_conntrack_max"} {
		s.files[path] = ""
	}
	if found := s.examine(t); len(found) > 0 {
		t.Errorf("found\n%s", Text(found))
	}
}
