package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	keyAuditSink  = "audit.sink"
	keyRoles      = "policy.roles"
	maxTypeBytes  = 256 // of a rule's type or expression
	ruleRole      = "must be 1 to 32 of a-z, 0-9, '.', '_' and '-'"
	rulePrefixes  = "must be a list of prefixes"
	defaultSpool  = 64
	maxSpoolMiB   = 1 << 20
	defaultSyslog = "tls"
)

var roleText = regexp.MustCompile(`^[a-z0-9._-]{1,32}$`)

// operatorRoles are those of whoever runs the server. No backend gets them.
var operatorRoles = []string{"admin", "auditor"}

// checkSecrets judges every secret that lets somebody in.
func (k *checking) checkSecrets() {
	s := k.API.Security
	for _, secret := range []struct {
		key   string
		value Secret
		used  bool
	}{
		{"api.security.registration_token", s.RegistrationToken, s.RegistrationToken != ""},
		{"api.security.admin_secret_key", s.AdminSecretKey, s.EnableAdmin && s.AdminSecretKey != ""},
		{"api.security.auditor_secret_key", s.AuditorSecretKey, s.AuditorSecretKey != ""},
		{"rtc.turn.static_auth_secret", k.RTC.TURN.StaticAuthSecret, k.RTC.TURN.StaticAuthSecret != ""},
	} {
		if !secret.used {
			continue
		}
		if rule := weakSecret(secret.value.Reveal()); rule != "" {
			k.weakness(secret.key, secret.value, rule)
			k.guessable = true
		}
	}
	if s.AuditorSecretKey != "" && s.AuditorSecretKey == s.AdminSecretKey {
		k.fault("api.security.auditor_secret_key", s.AuditorSecretKey, "must not be the same as api.security.admin_secret_key")
	}
}

// checkRegistration judges who can register without the admin key.
func (k *checking) checkRegistration() {
	http, s := k.API.HTTP, k.API.Security
	const key = "api.security.allow_self_registration"
	k.prefixes("api.security.registration_cidrs", s.RegistrationCIDRs)
	k.prefixes("api.http.trusted_proxies", http.TrustedProxies)
	if everywhere(http.TrustedProxies) {
		k.weakness("api.http.trusted_proxies", strings.Join(http.TrustedProxies, ","),
			"holds every address: anybody could say where a request came from, and that it was encrypted")
	}
	nets := len(s.RegistrationCIDRs) > 0 && !everywhere(s.RegistrationCIDRs)
	fenced := s.RegistrationToken != "" || nets || http.TLS.Enable && http.TLS.ClientAuth == ClientAuthRequire
	switch {
	case !s.AllowSelfRegistration || isLoopback(http.ListenAddress) || fenced:
	case !http.TLS.Enable:
		k.weakness(key, true,
			"lets anyone who reaches the API register, with keys sent in clear (no TLS, and api.http.listen_address is not a loopback address)")
	case k.Mode.Production():
		k.doubt(key, "lets anyone who reaches the API register: set api.security.registration_token, api.security.registration_cidrs "+
			"or api.http.tls.client_auth = \"require\"")
	}
}

// everywhere reports whether a list of prefixes has all addresses of a kind in one.
func everywhere(list []string) bool {
	prefixes, err := Prefixes(list)
	return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Bits() == 0 })
}

// checkAccess applies the rules for credentials on the way.
func (k *checking) checkAccess() {
	http, s := k.API.HTTP, k.API.Security
	k.oneOf("api.security.basic_auth_scope", string(s.BasicAuthScope), string(BasicScopeAll), string(BasicScopeLogin))
	k.duration("api.security.ticket_ttl", s.TicketTTL, time.Second, 10*time.Minute)
	for i, bind := range s.TicketBind {
		if bind != TicketClient && bind != TicketAddr || slices.Contains(s.TicketBind[:i], bind) {
			k.fault("api.security.ticket_bind", strings.Join(s.TicketBind, ","), "must hold only client and addr, each once")
			break
		}
	}
	if !slices.Contains(s.TicketBind, TicketClient) {
		k.fault("api.security.ticket_bind", strings.Join(s.TicketBind, ","), "must have client")
	}
	if http.TLS.Enable || isLoopback(http.ListenAddress) || len(http.TrustedProxies) > 0 {
		return
	}
	if s.RequireTLS {
		k.doubt("api.security.require_tls", "is on, but the API has neither TLS nor api.http.trusted_proxies: no backend of another machine gets in")
	} else if k.Mode.Production() {
		k.notes = append(k.notes, "api.http.tls.enable is off: keys and tokens travel in clear unless something in front of the API encrypts; "+
			"if a proxy does, name it in api.http.trusted_proxies")
	}
}

func (k *checking) prefixes(key string, list []string) {
	if _, err := Prefixes(list); err != nil {
		k.fault(key, strings.Join(list, ","), rulePrefixes+": "+err.Error())
	}
}

func (k *checking) duration(key string, value, low, high time.Duration) {
	if value < low || value > high {
		k.fault(key, value, fmt.Sprintf("must be from %v to %v", low, high))
	}
}

// entry reports a fault of one entry of a list or table.
func (k *checking) entry(key, value, rule string) {
	k.faults = append(k.faults, Fault{Key: key, Value: clip(value), Rule: rule})
}

func (k *checking) checkPolicy() {
	p := k.Policy
	switch {
	case !roleText.MatchString(p.DefaultRole):
		k.fault("policy.default_role", p.DefaultRole, ruleRole)
	case slices.Contains(operatorRoles, p.DefaultRole):
		k.fault("policy.default_role", p.DefaultRole, "must not be a role of operators: whoever registers would have it")
	}
	for i, role := range p.ClientIncludes {
		key := fmt.Sprintf("policy.client_includes[%d]", i)
		if !roleText.MatchString(role) {
			k.entry(key, role, ruleRole)
		} else if slices.Contains(operatorRoles, role) {
			k.entry(key, role, "must not be a role of operators")
		}
	}
	for _, route := range sortedKeys(p.Roles) {
		if role := p.Roles[route]; !roleText.MatchString(role) {
			k.entry(pairKey(keyRoles, route), role, ruleRole)
		}
	}
	for _, list := range []struct {
		key   string
		rules []Rule
	}{{"policy.in_ok", p.In}, {"policy.out_ok", p.Out}} {
		for i, r := range list.rules {
			k.checkRule(fmt.Sprintf("%s[%d]", list.key, i), r)
		}
	}
}

func (k *checking) checkRule(key string, r Rule) {
	name, text := ".type", r.Type
	if r.TypeRE != "" {
		name, text = ".type_re", r.TypeRE
	}
	switch {
	case (r.Type == "") == (r.TypeRE == ""):
		k.entry(key, r.Type, "must have one of type and type_re")
	case len(text) > maxTypeBytes:
		k.entry(key+name, text, fmt.Sprintf("must be at most %d bytes", maxTypeBytes))
	case r.TypeRE != "":
		if _, err := regexp.Compile(r.TypeRE); err != nil {
			k.entry(key+name, text, "must be a regular expression (RE2)")
		}
	}
	if r.Role != "" && !roleText.MatchString(r.Role) {
		k.entry(key+".role", r.Role, ruleRole+", or empty for any")
	}
}

func (k *checking) checkCalls() {
	const million = 1_000_000
	c := k.Call
	k.duration("call.linger", c.Linger, 0, 24*time.Hour)
	k.duration("call.unused_for", c.UnusedFor, time.Minute, 30*24*time.Hour)
	k.between("call.max_participants", c.MaxParticipants, 0, million)
	k.between("call.tokens_per_minute", c.TokensPerMinute, 1, million)
}

func (k *checking) checkAudit() {
	a := k.Audit
	k.oneOf("audit.enable", a.Enable, "auto", "on", "off")
	k.oneOf("audit.user_id", a.UserID, "hash", "plain", "omit")
	k.oneOf("audit.on_failure", a.OnFailure, "drop", "block")
	k.between("audit.max_file_mib", a.MaxFileMiB, 1, 10240)
	k.between("audit.keep_days", a.KeepDays, 1, 36500)
	if k.AuditOn() {
		k.checkFolder("audit.dir", a.Dir)
	}
	for i := range a.Sinks {
		k.checkSink(fmt.Sprintf("%s[%d]", keyAuditSink, i), a.Sinks[i])
	}
	if len(a.Sinks) > 0 && k.guessable {
		k.weak = append(k.weak, Fault{Key: keyAuditSink, Value: fmt.Sprintf("%d sinks", len(a.Sinks)),
			Rule: "must not be used while a secret of this configuration can be guessed"})
	}
	if len(a.Sinks) > 0 && !k.AuditOn() {
		k.doubt(keyAuditSink, "has no effect: audit.enable is off (auto means on in production)")
	}
}

func (k *checking) checkSink(key string, s AuditSink) {
	if s.Type != "syslog" {
		k.entry(key+".type", s.Type, "must be syslog")
	}
	if !slices.Contains([]string{"tls", "tcp", "udp"}, s.TransportOrDefault()) {
		k.entry(key+".transport", s.Transport, "must be one of tls, tcp, udp")
	}
	switch {
	case !isHostPort(s.Address) || strings.HasPrefix(s.Address, ":"):
		k.entry(key+".address", s.Address, `must be host:port, such as "10.0.0.5:6514"`)
	case s.TransportOrDefault() != "tls" && !isPrivate(s.Address):
		k.weak = append(k.weak, Fault{Key: key + ".address", Value: clip(s.Address),
			Rule: "must be a private address (an IP address, not a name) without transport = \"tls\": the record would cross the network in clear"})
	}
	if (s.CertFile == "") != (s.CertKey == "") {
		k.entry(key+".cert_file", s.CertFile, "must stand together with cert_key")
	}
	if s.TransportOrDefault() == "tls" {
		for _, file := range [][2]string{{".ca_file", s.CAFile}, {".cert_file", s.CertFile}, {".cert_key", s.CertKey}} {
			if file[1] == "" {
				continue
			}
			if _, err := readRegular(file[1], maxPEMBytes); err != nil {
				k.entry(key+file[0], file[1], "must be a readable file: "+err.Error())
			}
		}
	}
	if s.SpoolMiB < 0 || s.SpoolMiB > maxSpoolMiB {
		k.entry(key+".spool_mib", fmt.Sprint(s.SpoolMiB), fmt.Sprintf("must be from 1 to %d, or 0 for %d", maxSpoolMiB, defaultSpool))
	}
}

// TransportOrDefault returns the transport, tls if none is set.
func (s AuditSink) TransportOrDefault() string {
	if s.Transport == "" {
		return defaultSyslog
	}
	return s.Transport
}

// SpoolBytes returns how many bytes may wait on disk for the sink.
func (s AuditSink) SpoolBytes() int64 {
	if s.SpoolMiB == 0 {
		return defaultSpool << 20
	}
	return int64(s.SpoolMiB) << 20
}

// isPrivate reports whether host:port is an address that the internet cannot reach. A name is not
// one: it may mean another machine tomorrow.
func isPrivate(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for name := range m {
		keys = append(keys, name)
	}
	slices.Sort(keys)
	return keys
}
