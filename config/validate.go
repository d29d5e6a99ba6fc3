package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A checking collects what is wrong (faults), what production mode refuses (weak), and what is
// never wrong but surely not meant (doubts).
type checking struct {
	Config
	faults Faults
	weak   Faults
	doubts []string
}

// Validate applies every rule and returns [Faults], or nil. It reads the certificate and looks at
// the permissions of the store's folder, and changes nothing.
func (c Config) Validate() error { return c.check().faults.orNil() }

// Warnings returns what an operator should change or know but what does not stop the start: with
// mode "drop-in" that includes the weak settings that production mode refuses.
func (c Config) Warnings() []string {
	found := c.check()
	var warnings []string
	if c.Mode != ModeProduction {
		for _, f := range found.weak {
			warnings = append(warnings, fmt.Sprintf("%s = %s %s; mode %q refuses it", f.Key, quoted(f.Value), f.Rule, ModeProduction))
		}
	}
	return append(warnings, found.doubts...)
}

func (c Config) check() *checking {
	k := &checking{Config: c}
	k.checkText()
	k.oneOf("mode", string(c.Mode), string(ModeDropIn), string(ModeProduction))
	k.checkAPI()
	k.checkAdmin()
	k.checkRTC()
	k.checkOverrides()
	k.checkICE()
	k.checkStore()
	k.checkLogger()
	k.checkLimits()
	if c.Shutdown.DrainDeadline < 0 {
		k.fault("shutdown.drain_deadline", c.Shutdown.DrainDeadline, "must not be negative (0 = no limit)")
	}
	if c.Mode == ModeProduction {
		k.faults = append(k.faults, k.weak...)
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
		if f := key.field(&k.Config); f.Kind() == reflect.String && !utf8.ValidString(f.String()) {
			k.fault(key.Name, f.String(), "must be UTF-8 text")
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
	if http.TLS.Enable {
		k.checkCertificate(http.TLS)
	}
	k.between("api.security.session_cache.expiration_minutes", security.SessionCache.ExpirationMinutes, 1, 100*365*24*60)
	k.between("api.security.bcrypt_cost", security.BcryptCost, 10, 14)
	if security.EnableAdmin {
		const key = "api.security.admin_secret_key"
		if security.AdminSecretKey == "" {
			k.fault(key, "", "must not be empty with api.security.enable_admin on")
		} else if rule := weakSecret(string(security.AdminSecretKey)); rule != "" {
			k.weakness(key, security.AdminSecretKey, rule)
		}
	}
	if security.AllowSelfRegistration && !http.TLS.Enable && !isLoopback(http.ListenAddress) {
		k.weakness("api.security.allow_self_registration", true,
			"lets anyone who reaches the API register, with keys sent in clear (no TLS, and api.http.listen_address is not a loopback address)")
	}
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
	case !isLoopback(admin):
		k.weakness(key, admin, "opens profiles to the network without authentication; it should be a loopback address")
	}
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
	const key = "store.data_source"
	folder := k.Store.DataSource
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
		{"rtc.limits.sessions_per_call", rtc.SessionsPerCall, 0, million},
		{"rtc.limits.sessions_per_client", rtc.SessionsPerClient, 0, million},
		{"rtc.limits.calls_per_client", rtc.CallsPerClient, 0, million},
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

const maxPEMBytes = 1 << 20

// checkCertificate loads the pair, and says of which file a problem is.
func (k *checking) checkCertificate(t TLS) {
	const certKey, keyKey = "api.http.tls.cert_file", "api.http.tls.cert_key"
	cert, certOK := k.readPEM(certKey, t.CertFile)
	key, keyOK := k.readPEM(keyKey, t.CertKey)
	if certOK {
		if err := checkLeaf(cert); err != nil {
			k.fault(certKey, t.CertFile, "must be a certificate: "+err.Error())
			certOK = false
		}
	}
	if !certOK || !keyOK {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		k.fault(keyKey, t.CertKey, "must load together with "+certKey+": "+err.Error())
	}
}

// checkLeaf parses the first certificate of a PEM file.
func checkLeaf(data []byte) error {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return errors.New("no PEM block of a certificate")
		}
		if block.Type == "CERTIFICATE" {
			_, err := x509.ParseCertificate(block.Bytes)
			return err
		}
		data = rest
	}
}

func (k *checking) readPEM(key, path string) ([]byte, bool) {
	if path == "" {
		k.fault(key, "", "must not be empty with api.http.tls.enable on")
		return nil, false
	}
	info, err := os.Stat(path)
	var data []byte
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case info.Size() > maxPEMBytes:
		err = fmt.Errorf("larger than %d bytes", maxPEMBytes)
	default:
		data, err = os.ReadFile(path)
	}
	if err != nil {
		// The path stands beside the rule already.
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err
		}
		k.fault(key, path, "must be a readable file: "+err.Error())
		return nil, false
	}
	return data, true
}

// sampleSecrets are found in examples and documentation, so they are no secrets.
var sampleSecrets = []string{
	"admin_secret_key", "admin", "admin123", "changeme", "change-me", "change_me", "default", "example", "password",
	"rtcd", "s3cret", "secret", "secret_key", "test", "qwerty", "your_secret_key", "supersecret",
}

const (
	minSecretBytes   = 32
	minDistinctBytes = 8
)

// weakSecret says why a secret can be guessed, or "".
func weakSecret(s string) string {
	lower := strings.ToLower(strings.TrimSpace(s))
	for _, sample := range sampleSecrets {
		if lower != "" && strings.ReplaceAll(lower, sample, "") == "" {
			return "is a well-known sample value"
		}
	}
	if len(s) < minSecretBytes {
		return fmt.Sprintf("is shorter than %d bytes", minSecretBytes)
	}
	distinct := map[byte]bool{}
	for _, b := range []byte(s) {
		distinct[b] = true
	}
	if len(distinct) < minDistinctBytes {
		return fmt.Sprintf("has fewer than %d different characters", minDistinctBytes)
	}
	return ""
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
