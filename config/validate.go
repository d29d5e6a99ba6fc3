package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A checking collects what is wrong (faults), what production mode refuses (weak), and what is
// never wrong but surely not meant (doubts).
type checking struct {
	Config
	faults Faults
	weak   Faults
	doubts []string
	notes  []string // what may well be meant

	guessable bool // a secret is weak
}

// maxSocketPath leaves room, within the 107 bytes of the system, for a name beside it.
const maxSocketPath = 90

// Validate applies every rule and returns [Faults], or nil. It reads the certificates and looks at
// the permissions of folders and of files of secrets, and changes nothing.
func (c Config) Validate() error { return c.check().allFaults().orNil() }

// Warnings returns what an operator should change or know but what does not stop the start: with
// mode "drop-in" that includes the weak settings that production mode refuses.
func (c Config) Warnings() []string { return c.check().warnings() }

func (k *checking) warnings() []string {
	var warnings []string
	if !k.Mode.Production() {
		for _, f := range k.weak {
			warnings = append(warnings, fmt.Sprintf("%s = %s %s; mode %q refuses it", f.Key, quoted(f.Value), f.Rule, ModeProduction))
		}
	}
	return append(warnings, k.doubts...)
}

// allFaults returns the faults, in production mode with the weak settings.
func (k *checking) allFaults() Faults {
	if k.Mode.Production() {
		return append(k.faults[:len(k.faults):len(k.faults)], k.weak...)
	}
	return k.faults
}

func (c Config) check() *checking {
	k := &checking{Config: c}
	k.checkText()
	k.oneOf("mode", string(c.Mode), string(ModeDropIn), string(ModeProduction), string(ModeDevelopment))
	k.checkAPI()
	k.checkAdmin()
	k.checkSecrets()
	k.checkAccess()
	k.checkPolicy()
	k.checkCalls()
	k.checkRTC()
	k.checkOverrides()
	k.checkICE()
	k.checkStore()
	k.checkAudit()
	k.checkEvents()
	k.checkCallReport()
	k.checkFileModes()
	k.checkLogger()
	k.checkLimits()
	if c.API.Limits.OrphanedAfter < 0 {
		k.fault("api.limits.orphaned_after", c.API.Limits.OrphanedAfter, "must not be negative (0 = for ever)")
	}
	if c.Shutdown.DrainDeadline < 0 {
		k.fault("shutdown.drain_deadline", c.Shutdown.DrainDeadline, "must not be negative (0 = no limit)")
	}
	if len(c.Upgrade.Socket) > maxSocketPath {
		k.fault("upgrade.socket", c.Upgrade.Socket, fmt.Sprintf("must be at most %d bytes long", maxSocketPath))
	}
	return k
}

func (k *checking) fault(key string, value any, rule string) {
	k.faults = append(k.faults, Fault{Key: key, Value: known().byName[key].shown(value), Rule: rule})
}

func (k *checking) weakness(key string, value any, rule string) {
	k.weak = append(k.weak, Fault{Key: key, Value: known().byName[key].shown(value), Rule: rule})
}

func (k *checking) doubt(key, text string) { k.doubts = append(k.doubts, key+" "+text) }

func (k *checking) between(key string, value, low, high int) {
	if value < low || value > high {
		k.fault(key, value, fmt.Sprintf("must be from %d to %d", low, high))
	}
}

func (k *checking) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		k.fault(key, value, "must be one of "+strings.Join(allowed, ", "))
	}
}

// checkText refuses bytes that no file could hold.
func (k *checking) checkText() {
	for _, key := range known().keys {
		f := key.field(&k.Config)
		switch {
		case f.Kind() == reflect.String && !utf8.ValidString(f.String()):
			k.fault(key.Name, f.String(), "must be UTF-8 text")
		case f.Type() == namesType && key.Name != keyVideoCodecs && !utf8.ValidString(strings.Join(f.Interface().([]string), "")):
			k.fault(key.Name, strings.Join(f.Interface().([]string), ","), "must be UTF-8 text")
		}
	}
	for i, s := range k.RTC.ICEServers {
		if !utf8.ValidString(string(s.Username)) || !utf8.ValidString(string(s.Credential)) {
			k.faults = append(k.faults, Fault{Key: fmt.Sprintf("%s[%d]", keyICEServers, i), Value: redacted, Rule: "must be UTF-8 text"})
		}
	}
}

func (k *checking) checkAPI() {
	http, security := k.API.HTTP, k.API.Security
	const listenKey = "api.http.listen_address"
	if http.ListenAddress == "" {
		k.fault(listenKey, "", "must not be empty")
	} else if !isHostPort(http.ListenAddress) {
		k.fault(listenKey, http.ListenAddress, `must be host:port, such as ":8045" or "127.0.0.1:8045"`)
	}
	k.checkTLS()
	k.between("api.security.session_cache.expiration_minutes", security.SessionCache.ExpirationMinutes, 1, 100*365*24*60)
	k.between("api.security.bcrypt_cost", security.BcryptCost, 10, 14)
	if security.EnableAdmin && security.AdminSecretKey == "" {
		k.fault("api.security.admin_secret_key", "", "must not be empty with api.security.enable_admin on")
	}
	k.checkRegistration()
}

func (k *checking) checkAdmin() {
	const key = "api.admin.listen_address"
	admin, api := k.API.Admin.ListenAddress, k.API.HTTP.ListenAddress
	switch {
	case admin == "":
	case !isHostPort(admin):
		k.fault(key, admin, `must be host:port, such as "127.0.0.1:8046", or empty for none`)
	case isHostPort(api) && sameListener(admin, api):
		k.fault(key, admin, "must not be the port of api.http.listen_address")
	case isLoopback(admin):
	case !k.API.Admin.TLS.Enable || !k.API.Security.EnableAdmin:
		k.weakness(key, admin, "opens profiles to the network without authentication; it should be a loopback address, "+
			"or api.admin.tls.enable and api.security.enable_admin be on")
	case !k.Mode.Production():
		k.doubt(key, "opens profiles and metrics to the network without authentication, which only mode \"production\" asks for")
	}
	k.prefixes("api.admin.allowed_cidrs", k.API.Admin.AllowedCIDRs)
}

func (k *checking) checkRTC() {
	r := k.RTC
	for _, l := range []struct{ key, list string }{
		{"rtc.ice_address_udp", r.ICEAddressUDP},
		{"rtc.ice_address_tcp", r.ICEAddressTCP},
	} {
		addrs, err := parseAddresses(l.list)
		if err != nil {
			k.fault(l.key, l.list, ruleAddresses+": "+err.Error())
		}
		if slices.ContainsFunc(addrs, netip.Addr.Is6) && !r.EnableIPv6 {
			k.doubt(l.key, "names an IPv6 address, but rtc.enable_ipv6 is off")
		}
	}
	for _, p := range []struct {
		key  string
		port int
	}{{"rtc.ice_port_udp", r.ICEPortUDP}, {"rtc.ice_port_tcp", r.ICEPortTCP}} {
		if p.port < minPort || p.port > maxPort {
			k.fault(p.key, p.port, rulePort)
		}
	}
	k.checkPortClash("api.http.listen_address", k.API.HTTP.ListenAddress)
	k.checkPortClash("api.admin.listen_address", k.API.Admin.ListenAddress)
	if r.UDPSocketsCount < 1 {
		k.fault(keyUDPSockets, r.UDPSocketsCount, "must be greater than 0")
	}
	if n := r.NACKBufferSize; n != 0 && (n < 32 || n > 8192 || n&(n-1) != 0) {
		k.fault("rtc.nack_buffer_size", n, "must be 0 (means 256) or a power of two from 32 to 8192")
	}
	k.duration("rtc.ice_restart_after", r.ICERestartAfter, 250*time.Millisecond, 30*time.Second)
	k.between("rtc.screen_shares", r.ScreenShares, 0, 64)
	k.between("rtc.last_cameras", r.LastCameras, 0, 1000)
	k.between("rtc.loudest_voices", r.LoudestVoices, 0, 1000)
	k.checkVideoCodecs()
}

// videoCodecs are those the server can forward.
var videoCodecs = []string{"VP8", "AV1", "VP9", "H264"}

func (k *checking) checkVideoCodecs() {
	list := k.RTC.VideoCodecs
	wrong := func(rule string) { k.fault(keyVideoCodecs, strings.Join(list, ","), rule) }
	for i, name := range list {
		if !slices.Contains(videoCodecs, name) {
			wrong("must hold only " + strings.Join(videoCodecs, ", ") + ", not " + quoted(clip(name)))
			return
		}
		if slices.Contains(list[:i], name) {
			wrong("must name " + name + " once")
			return
		}
	}
	if !slices.Contains(list, "VP8") {
		wrong("must have VP8, which every client knows")
	}
}

// checkPortClash finds a media TCP port that another TCP listener has already.
func (k *checking) checkPortClash(otherKey, other string) {
	if other == "" || !isHostPort(other) {
		return
	}
	addrs, err := k.RTC.TCPAddresses()
	if err != nil {
		return
	}
	hosts := []string{""}
	if addrs != nil {
		hosts = nil
		for _, a := range addrs {
			hosts = append(hosts, a.String())
		}
	}
	for _, host := range hosts {
		if sameListener(net.JoinHostPort(host, strconv.Itoa(k.RTC.ICEPortTCP)), other) {
			k.fault("rtc.ice_port_tcp", k.RTC.ICEPortTCP, "must not be the port of "+otherKey)
			return
		}
	}
}

func (k *checking) checkOverrides() {
	r := k.RTC
	host, err := r.HostOverride()
	if err != nil {
		k.fault("rtc.ice_host_override", r.ICEHostOverride, err.Error())
	}
	port, err2 := r.PortOverrides()
	if err2 != nil {
		k.fault("rtc.ice_host_port_override", r.ICEHostPortOverride, err2.Error())
	}
	if err == nil && port.Kind != PortOverrideNone && host.Kind == HostOverrideNone && r.DiscoveryAddress() == "" {
		k.doubt("rtc.ice_host_port_override", "has no effect without rtc.ice_host_override or a STUN server in rtc.ice_servers")
	}
}

func (k *checking) checkICE() {
	r := k.RTC
	k.faults = append(k.faults, checkServers(r.ICEServers)...)
	for i, s := range r.ICEServers {
		if why := r.unusable(s); why != "" {
			k.doubt(fmt.Sprintf("%s[%d]", keyICEServers, i), why+": the entry is not used")
		}
	}
	k.oneOf("rtc.ice_lite", string(r.ICELite), string(ICELiteAuto), string(ICELiteOn), string(ICELiteOff))
	if r.ICELite == ICELiteOn && slices.ContainsFunc(r.ICEServers, ICEServer.IsTURN) {
		k.doubt("rtc.ice_lite", "is on: an ICE-lite agent does not use the TURN servers of rtc.ice_servers")
	}
	if r.TURN.StaticAuthSecret != "" {
		k.between("rtc.turn.credentials_expiration_minutes", r.TURN.CredentialsExpirationMinutes, 1, 10079)
	}
}

func (k *checking) checkStore() {
	k.checkFolder("store.data_source", k.Store.DataSource)
}

// checkFolder applies the rules for a folder that others must not tamper with.
func (k *checking) checkFolder(key, folder string) {
	if folder == "" {
		k.fault(key, "", "must not be empty")
		return
	}
	if strings.ContainsRune(folder, 0) {
		k.fault(key, folder, "must not hold a zero byte")
		return
	}
	if open := openFolder(folder); open != "" {
		k.weakness(key, folder, fmt.Sprintf("is in a folder that every user may write to (%s)", quoted(clip(open))))
	}
}

// openFolder returns the folder that lets other users tamper with path, or "": path itself or what
// would contain it if world-writable, or any folder above that is so without the sticky bit.
func openFolder(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	container := false
	for at := path; ; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil {
			world := info.IsDir() && info.Mode().Perm()&0o002 != 0
			if world && (!container || info.Mode()&os.ModeSticky == 0) {
				return at
			}
			container = container || at != path
		}
		if at == filepath.Dir(at) {
			return ""
		}
	}
}

var levels = []string{"panic", "fatal", "error", "warn", "info", "debug", "trace", "stdlog"}

func (k *checking) checkLogger() {
	l := k.Logger
	if !l.EnableConsole && !l.EnableFile {
		k.fault("logger.enable_console", false, "must be on if logger.enable_file is off")
	}
	if l.EnableConsole {
		k.level("logger.console_level", l.ConsoleLevel)
	}
	if l.EnableFile {
		k.level("logger.file_level", l.FileLevel)
		if l.FileLocation == "" {
			k.fault("logger.file_location", "", "must not be empty with logger.enable_file on")
		}
	}
}

func (k *checking) level(key, value string) {
	if !slices.Contains(levels, strings.ToLower(value)) {
		k.fault(key, value, "must be one of "+strings.Join(levels, ", "))
	}
}

func (k *checking) checkLimits() {
	const million = 1_000_000
	api, rtc := k.API.Limits, k.RTC.Limits
	for _, l := range []struct {
		key              string
		value, low, high int
	}{
		{"api.limits.ws_connections_per_client", api.WSConnectionsPerClient, 1, million},
		{"api.limits.ws_message_bytes", api.WSMessageBytes, 4 << 10, 64 << 20},
		{"api.limits.ws_messages_per_second", api.WSMessagesPerSecond, 1, million},
		{"api.limits.connections", api.Connections, 1, million},
		{"api.limits.connections_per_ip", api.ConnectionsPerIP, 0, million},
		{"rtc.limits.sessions", rtc.Sessions, 0, million},
		{"rtc.limits.calls", rtc.Calls, 0, million},
		{"rtc.limits.sessions_per_call", rtc.SessionsPerCall, 0, million},
		{"rtc.limits.sessions_per_client", rtc.SessionsPerClient, 0, million},
		{"rtc.limits.calls_per_client", rtc.CallsPerClient, 0, million},
		{"rtc.limits.bitrate_per_client", rtc.BitratePerClient, 0, 1_000_000 * million},
		{"rtc.limits.joins_per_second", rtc.JoinsPerSecond, 1, million},
		{"rtc.limits.joins_burst", rtc.JoinsBurst, 1, million},
		{"rtc.limits.remote_candidates", rtc.RemoteCandidates, 1, 1024},
		{"rtc.limits.media_sections", rtc.MediaSections, 3, 1024},
		{"rtc.limits.tcp_connections", rtc.TCPConnections, 1, million},
		{"rtc.limits.tcp_connections_per_ip", rtc.TCPConnectionsPerIP, 1, million},
		{"store.min_free_mib", k.Store.MinFreeMiB, 1, million},
		{"store.max_clients", k.Store.MaxClients, 1, million},
	} {
		k.between(l.key, l.value, l.low, l.high)
	}
}

// isHostPort reports whether a TCP listener can be told the address, the machine allowing.
func isHostPort(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || strings.ContainsAny(host, " \t\r\n/") {
		return false
	}
	if n, err := strconv.Atoi(port); err == nil {
		return n >= 0 && n <= 65535
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// sameListener reports whether two valid addresses cannot both be listened on.
func sameListener(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	numberA, _ := net.LookupPort("tcp", portA)
	numberB, _ := net.LookupPort("tcp", portB)
	if numberA == 0 || numberA != numberB {
		return false
	}
	return hostA == hostB || isAll(hostA) || isAll(hostB)
}

func isAll(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}
