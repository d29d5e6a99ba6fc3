package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ClientAuth says whether a listener asks its clients for a certificate.
type ClientAuth string

// Values of ClientAuth. With request a client may connect without a certificate; one that it shows
// has to verify all the same.
const (
	ClientAuthNone    ClientAuth = "none"
	ClientAuthRequest ClientAuth = "request"
	ClientAuthRequire ClientAuth = "require"
)

// CertBind says what of a backend's certificate has to be its id.
type CertBind string

// Values of CertBind: a DNS name, the common name, or the certificate's SHA-256 in a list.
const (
	CertBindSAN         CertBind = "san"
	CertBindCN          CertBind = "cn"
	CertBindFingerprint CertBind = "fingerprint"
)

// BasicScope says where a backend may use its key itself.
type BasicScope string

// Values of BasicScope: everywhere, or only to register and to log in.
const (
	BasicScopeAll   BasicScope = "all"
	BasicScopeLogin BasicScope = "login"
)

// Entries of Security.TicketBind: what a ticket for a WebSocket is good for besides its client, who
// is always named.
const (
	TicketClient = "client" // the id of the backend
	TicketAddr   = "addr"   // the address that asked for it: IPv4, or the /64 of IPv6
)

// Policy is about which role may do what. Roles are 1 to 32 of a-z, 0-9, '.', '_' and '-'.
type Policy struct {
	DefaultRole    string            `toml:"default_role" env:"RTCD_POLICY_DEFAULTROLE" default:"client"`
	ClientIncludes []string          `toml:"client_includes" env:"RTCD_POLICY_CLIENTINCLUDES" default:"calls.create,tokens.create,moderate"`
	Roles          map[string]string `toml:"roles,omitempty" env:"RTCD_POLICY_ROLES" default:"{}"`  // the role by route or message, such as "POST /calls" or "ws:join"
	In             []Rule            `toml:"in_ok,omitempty" env:"RTCD_POLICY_INOK" default:"[]"`   // of messages from backends; empty = built-in
	Out            []Rule            `toml:"out_ok,omitempty" env:"RTCD_POLICY_OUTOK" default:"[]"` // of messages to backends; empty = built-in
}

// A Rule allows messages of one type, or of types that match an anchored RE2, to one role.
type Rule struct {
	Type   string `toml:"type,omitempty"`
	TypeRE string `toml:"type_re,omitempty"`
	Role   string `toml:"role,omitempty"` // "" = any
}

// Call is about who may join calls, and how calls begin and end.
type Call struct {
	RequireJoinToken bool          `toml:"require_join_token" env:"RTCD_CALL_REQUIREJOINTOKEN" default:"false"`
	ManagedOnly      bool          `toml:"managed_only" env:"RTCD_CALL_MANAGEDONLY" default:"false"`
	Linger           time.Duration `toml:"linger" env:"RTCD_CALL_LINGER" default:"30s"`
	UnusedFor        time.Duration `toml:"unused_for" env:"RTCD_CALL_UNUSEDFOR" default:"24h"`
	MaxParticipants  int           `toml:"max_participants" env:"RTCD_CALL_MAXPARTICIPANTS" default:"0"`    // 0 = no limit but sessions_per_call
	TokensPerMinute  int           `toml:"tokens_per_minute" env:"RTCD_CALL_TOKENSPERMINUTE" default:"600"` // join tokens made for one client
}

// Audit is about the record of who did what.
type Audit struct {
	Enable     string      `toml:"enable" env:"RTCD_AUDIT_ENABLE" default:"auto"` // "auto", "on", "off"; see Config.AuditOn
	Dir        string      `toml:"dir" env:"RTCD_AUDIT_DIR" default:"./audit"`
	UserID     string      `toml:"user_id" env:"RTCD_AUDIT_USERID" default:"hash"`       // "hash", "plain", "omit"
	OnFailure  string      `toml:"on_failure" env:"RTCD_AUDIT_ONFAILURE" default:"drop"` // "drop", "block"
	MaxFileMiB int         `toml:"max_file_mib" env:"RTCD_AUDIT_MAXFILEMIB" default:"64"`
	KeepDays   int         `toml:"keep_days" env:"RTCD_AUDIT_KEEPDAYS" default:"365"`
	Sinks      []AuditSink `toml:"sink,omitempty" env:"RTCD_AUDIT_SINK" default:"[]"`
}

// An AuditSink is a server that audit events are sent to.
type AuditSink struct {
	Type      string `toml:"type"`      // "syslog"
	Transport string `toml:"transport"` // "tls", "tcp", "udp"; empty = tls
	Address   string `toml:"address"`   // host:port
	CAFile    string `toml:"ca_file,omitempty"`
	CertFile  string `toml:"cert_file,omitempty"`
	CertKey   string `toml:"cert_key,omitempty"`  // path of the key's file
	SpoolMiB  int    `toml:"spool_mib,omitempty"` // 0 = 64
}

// AuditOn reports whether the audit record is kept: auto means in production.
func (c Config) AuditOn() bool {
	return c.Audit.Enable == "on" || c.Audit.Enable == "auto" && c.Mode.Production()
}

// Prefixes reads a list of CIDR prefixes; an address without a length is itself alone. Bits beyond
// the length are cleared.
func Prefixes(list []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%s is no prefix such as 10.0.0.0/8", quoted(clip(text)))
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		if a := p.Addr(); a.Is4In6() {
			if p.Bits() < 96 {
				return nil, fmt.Errorf("%s is no prefix such as 10.0.0.0/8", quoted(clip(text)))
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		prefixes = append(prefixes, p.Masked())
	}
	return prefixes, nil
}

// Fingerprints returns the SHA-256 of the certificates of each backend, in lower-case hex, from
// entries such as "backend-1=ab12...".
func (t TLS) Fingerprints() (map[string][]string, error) {
	prints := map[string][]string{}
	for _, entry := range t.ClientFingerprints {
		i := strings.LastIndexByte(entry, '=')
		if i < 1 {
			return nil, fmt.Errorf("%s is not clientID=SHA-256", quoted(clip(entry)))
		}
		sum := strings.ToLower(strings.ReplaceAll(entry[i+1:], ":", ""))
		if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("%s does not end with 64 hexadecimal digits", quoted(clip(entry)))
		}
		prints[entry[:i]] = append(prints[entry[:i]], sum)
	}
	return prints, nil
}
