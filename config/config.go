// Package config turns built-in defaults, one TOML file and the RTCD_* environment into a checked
// [Config].
//
// The later source wins, key by key. The names of a key in the file and in the environment and its
// default stand once, in the struct tags of Config: `toml`, `env` and `default`. Faults (wrong
// types, broken rules) stop the start and are all found at once; doubts (unknown names, weak
// settings) are warnings. Both end up in a [Report] that an operator can read.
//
// This is the only package that knows names of environment variables, and it imports nothing of
// the server: whoever wires the server copies values into each package's own Config.
package config

import (
	"log/slog"
	"runtime"
	"time"
)

// DefaultPath is where the file is looked for if the command line does not say.
const DefaultPath = "config/config.toml"

// A Mode says how strict the server is with weak settings.
type Mode string

const (
	// ModeDropIn accepts what deployments of the protocol run with today and warns of weak settings.
	ModeDropIn Mode = "drop-in"
	// ModeDevelopment is another word for ModeDropIn.
	ModeDevelopment Mode = "development"
	// ModeProduction refuses to start with weak settings.
	ModeProduction Mode = "production"
)

// Production reports whether weak settings are refused.
func (m Mode) Production() bool { return m == ModeProduction }

// A Secret is a value that must not be printed: formatting and logging it show a placeholder.
type Secret string

const redacted = "[redacted]"

// String returns a placeholder, or "" if there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString returns what String does, for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue returns what String does, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON encodes what String returns.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Config is the whole configuration. The zero value is not valid; start from [Default].
type Config struct {
	Mode     Mode       `toml:"mode" env:"RTCD_MODE" default:"drop-in"`
	Webhooks []Webhook  `toml:"webhook,omitempty" env:"RTCD_WEBHOOK" default:"[]"`
	API      API        `toml:"api"`
	Policy   Policy     `toml:"policy"`
	Call     Call       `toml:"call"`
	RTC      RTC        `toml:"rtc"`
	Store    Store      `toml:"store"`
	Audit    Audit      `toml:"audit"`
	Events   Events     `toml:"events"`
	Report   CallReport `toml:"report"`
	Logger   Logger     `toml:"logger"`
	Shutdown Shutdown   `toml:"shutdown"`
	Upgrade  Upgrade    `toml:"upgrade"`
}

// API is about the HTTP and WebSocket interface for backends.
type API struct {
	HTTP     HTTP      `toml:"http"`
	Security Security  `toml:"security"`
	Admin    Admin     `toml:"admin"`
	Limits   APILimits `toml:"limits"`
}

// HTTP is about the API listener.
type HTTP struct {
	ListenAddress  string   `toml:"listen_address" env:"RTCD_API_HTTP_LISTENADDRESS" default:":8045"`
	TrustedProxies []string `toml:"trusted_proxies" env:"RTCD_API_HTTP_TRUSTEDPROXIES" default:"[]"` // prefixes; see Prefixes
	TLS            TLS      `toml:"tls"`
}

// TLS is about encryption of the API listener.
type TLS struct {
	Enable   bool   `toml:"enable" env:"RTCD_API_HTTP_TLS_ENABLE" default:"false"`
	CertFile string `toml:"cert_file" env:"RTCD_API_HTTP_TLS_CERTFILE" default:""`
	CertKey  string `toml:"cert_key" env:"RTCD_API_HTTP_TLS_CERTKEY" default:""` // path of the key's file

	ClientAuth         ClientAuth `toml:"client_auth" env:"RTCD_API_HTTP_TLS_CLIENTAUTH" default:"none"`
	ClientCAFile       string     `toml:"client_ca_file" env:"RTCD_API_HTTP_TLS_CLIENTCAFILE" default:""`
	ClientCertBind     CertBind   `toml:"client_cert_bind" env:"RTCD_API_HTTP_TLS_CLIENTCERTBIND" default:"san"`
	ClientFingerprints []string   `toml:"client_fingerprints" env:"RTCD_API_HTTP_TLS_CLIENTFINGERPRINTS" default:"[]"` // see Fingerprints
}

// Security is about who may use the API. Each secret may stand in a file of its own instead.
type Security struct {
	AllowSelfRegistration bool          `toml:"allow_self_registration" env:"RTCD_API_SECURITY_ALLOWSELFREGISTRATION" default:"false"`
	RegistrationToken     Secret        `toml:"registration_token" env:"RTCD_API_SECURITY_REGISTRATIONTOKEN" default:""`
	RegistrationTokenFile string        `toml:"registration_token_file" env:"RTCD_API_SECURITY_REGISTRATIONTOKENFILE" default:""`
	RegistrationCIDRs     []string      `toml:"registration_cidrs" env:"RTCD_API_SECURITY_REGISTRATIONCIDRS" default:"[]"` // prefixes; see Prefixes
	EnableAdmin           bool          `toml:"enable_admin" env:"RTCD_API_SECURITY_ENABLEADMIN" default:"false"`
	AdminSecretKey        Secret        `toml:"admin_secret_key" env:"RTCD_API_SECURITY_ADMINSECRETKEY" default:""`
	AdminSecretKeyFile    string        `toml:"admin_secret_key_file" env:"RTCD_API_SECURITY_ADMINSECRETKEYFILE" default:""`
	AuditorSecretKey      Secret        `toml:"auditor_secret_key" env:"RTCD_API_SECURITY_AUDITORSECRETKEY" default:""`
	AuditorSecretKeyFile  string        `toml:"auditor_secret_key_file" env:"RTCD_API_SECURITY_AUDITORSECRETKEYFILE" default:""`
	SessionCache          SessionCache  `toml:"session_cache"`
	BcryptCost            int           `toml:"bcrypt_cost" env:"RTCD_API_SECURITY_BCRYPTCOST" default:"10"`
	BasicAuthScope        BasicScope    `toml:"basic_auth_scope" env:"RTCD_API_SECURITY_BASICAUTHSCOPE" default:"all"`
	RequireTLS            bool          `toml:"require_tls" env:"RTCD_API_SECURITY_REQUIRETLS" default:"false"`
	TicketTTL             time.Duration `toml:"ticket_ttl" env:"RTCD_API_SECURITY_TICKETTTL" default:"60s"`
	TicketBind            []string      `toml:"ticket_bind" env:"RTCD_API_SECURITY_TICKETBIND" default:"client,addr"` // see TicketClient, TicketAddr
}

// SessionCache is about bearer tokens.
type SessionCache struct {
	ExpirationMinutes int `toml:"expiration_minutes" env:"RTCD_API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES" default:"1440"`
}

// Expiration returns how long a bearer token is valid.
func (s SessionCache) Expiration() time.Duration {
	return time.Duration(s.ExpirationMinutes) * time.Minute
}

// Admin is about the operator's listener: profiles, metrics and the routes below /admin.
type Admin struct {
	ListenAddress string   `toml:"listen_address" env:"RTCD_API_ADMIN_LISTENADDRESS" default:"127.0.0.1:8046"` // "" = off
	AllowedCIDRs  []string `toml:"allowed_cidrs" env:"RTCD_API_ADMIN_ALLOWEDCIDRS" default:"[]"`               // prefixes; empty = any address
	TLS           AdminTLS `toml:"tls"`
}

// AdminTLS is about encryption of the operator's listener, with the files of [TLS].
type AdminTLS struct {
	Enable     bool       `toml:"enable" env:"RTCD_API_ADMIN_TLS_ENABLE" default:"false"`
	ClientAuth ClientAuth `toml:"client_auth" env:"RTCD_API_ADMIN_TLS_CLIENTAUTH" default:"none"`
}

// APILimits bounds what backends may use.
type APILimits struct {
	WSConnectionsPerClient int `toml:"ws_connections_per_client" env:"RTCD_API_LIMITS_WSCONNECTIONSPERCLIENT" default:"64"`
	WSMessageBytes         int `toml:"ws_message_bytes" env:"RTCD_API_LIMITS_WSMESSAGEBYTES" default:"1048576"`
	WSMessagesPerSecond    int `toml:"ws_messages_per_second" env:"RTCD_API_LIMITS_WSMESSAGESPERSECOND" default:"5000"`
	Connections            int `toml:"connections" env:"RTCD_API_LIMITS_CONNECTIONS" default:"4096"`
	ConnectionsPerIP       int `toml:"connections_per_ip" env:"RTCD_API_LIMITS_CONNECTIONSPERIP" default:"256"` // 0 = off

	// OrphanedAfter is how long sessions go on of a backend that has no WebSocket; 0 = for ever.
	OrphanedAfter time.Duration `toml:"orphaned_after" env:"RTCD_API_LIMITS_ORPHANEDAFTER" default:"15m"`
}

// RTC is about media.
type RTC struct {
	ICEAddressUDP       string        `toml:"ice_address_udp" env:"RTCD_RTC_ICEADDRESSUDP" default:""`
	ICEPortUDP          int           `toml:"ice_port_udp" env:"RTCD_RTC_ICEPORTUDP" default:"8443"`
	ICEAddressTCP       string        `toml:"ice_address_tcp" env:"RTCD_RTC_ICEADDRESSTCP" default:""`
	ICEPortTCP          int           `toml:"ice_port_tcp" env:"RTCD_RTC_ICEPORTTCP" default:"8443"`
	EnableIPv6          bool          `toml:"enable_ipv6" env:"RTCD_RTC_ENABLEIPV6" default:"false"`
	ICEHostOverride     string        `toml:"ice_host_override" env:"RTCD_RTC_ICEHOSTOVERRIDE" default:""`
	ICEHostPortOverride PortOverride  `toml:"ice_host_port_override" env:"RTCD_RTC_ICEHOSTPORTOVERRIDE" default:""`
	ICEServers          []ICEServer   `toml:"ice_servers,omitempty" env:"RTCD_RTC_ICESERVERS" default:"[]"`
	ICELite             ICELite       `toml:"ice_lite" env:"RTCD_RTC_ICELITE" default:"auto"`
	ICERestart          bool          `toml:"ice_restart" env:"RTCD_RTC_ICERESTART" default:"true"`
	ICERestartAfter     time.Duration `toml:"ice_restart_after" env:"RTCD_RTC_ICERESTARTAFTER" default:"1s"` // of silence
	TURN                TURN          `toml:"turn"`
	UDPSocketsCount     int           `toml:"udp_sockets_count" env:"RTCD_RTC_UDPSOCKETSCOUNT" default:"100 for each CPU"` // per local address
	NACKBufferSize      int           `toml:"nack_buffer_size" env:"RTCD_RTC_NACKBUFFERSIZE" default:"256"`                // packets per outgoing video stream
	NACKDisableCopy     bool          `toml:"nack_disable_copy" env:"RTCD_RTC_NACKDISABLECOPY" default:"true"`             // accepted, without effect
	ScreenShares        int           `toml:"screen_shares" env:"RTCD_RTC_SCREENSHARES" default:"1"`                       // of a call at a time; 0 = no limit
	LastCameras         int           `toml:"last_cameras" env:"RTCD_RTC_LASTCAMERAS" default:"0"`                         // sent to each session, of the most recent speakers; 0 = all
	LoudestVoices       int           `toml:"loudest_voices" env:"RTCD_RTC_LOUDESTVOICES" default:"0"`                     // of a call that are forwarded; 0 = all
	PauseLayers         bool          `toml:"pause_layers" env:"RTCD_RTC_PAUSELAYERS" default:"false"`                     // tell senders of layers that nobody is sent
	VideoCodecs         []string      `toml:"video_codecs" env:"RTCD_RTC_VIDEOCODECS" default:"VP8,AV1,VP9,H264"`          // the preferred first; names as in SDP
	Limits              RTCLimits     `toml:"limits"`
}

// PortOverride is a port, or a list of localIP/port pairs; see [RTC.PortOverrides].
type PortOverride string

// ICELite says whether the server is an ICE-lite agent (RFC 8445, section 2.5).
type ICELite string

// Values of ICELite. Auto means on exactly if no ICE servers are configured.
const (
	ICELiteAuto ICELite = "auto"
	ICELiteOn   ICELite = "on"
	ICELiteOff  ICELite = "off"
)

// TURN is about short-lived TURN credentials.
type TURN struct {
	StaticAuthSecret             Secret `toml:"static_auth_secret" env:"RTCD_RTC_TURNCONFIG_STATICAUTHSECRET" default:""`
	StaticAuthSecretFile         string `toml:"static_auth_secret_file" env:"RTCD_RTC_TURNCONFIG_STATICAUTHSECRETFILE" default:""`
	CredentialsExpirationMinutes int    `toml:"credentials_expiration_minutes" env:"RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES" default:"1440"`
}

// CredentialsExpiration returns how long generated TURN credentials are valid.
func (t TURN) CredentialsExpiration() time.Duration {
	return time.Duration(t.CredentialsExpirationMinutes) * time.Minute
}

// RTCLimits bounds calls and the media port.
type RTCLimits struct {
	Sessions            int `toml:"sessions" env:"RTCD_RTC_LIMITS_SESSIONS" default:"0"`                           // of the server; 0 = off
	Calls               int `toml:"calls" env:"RTCD_RTC_LIMITS_CALLS" default:"0"`                                 // of the server; 0 = off
	SessionsPerCall     int `toml:"sessions_per_call" env:"RTCD_RTC_LIMITS_SESSIONSPERCALL" default:"1000"`        // 0 = off
	SessionsPerClient   int `toml:"sessions_per_client" env:"RTCD_RTC_LIMITS_SESSIONSPERCLIENT" default:"5000"`    // 0 = off
	CallsPerClient      int `toml:"calls_per_client" env:"RTCD_RTC_LIMITS_CALLSPERCLIENT" default:"2000"`          // 0 = off
	JoinsPerSecond      int `toml:"joins_per_second" env:"RTCD_RTC_LIMITS_JOINSPERSECOND" default:"100"`           // per client
	JoinsBurst          int `toml:"joins_burst" env:"RTCD_RTC_LIMITS_JOINSBURST" default:"1000"`                   // per client
	RemoteCandidates    int `toml:"remote_candidates" env:"RTCD_RTC_LIMITS_REMOTECANDIDATES" default:"32"`         // per session
	MediaSections       int `toml:"media_sections" env:"RTCD_RTC_LIMITS_MEDIASECTIONS" default:"1024"`             // per session
	BitratePerClient    int `toml:"bitrate_per_client" env:"RTCD_RTC_LIMITS_BITRATEPERCLIENT" default:"0"`         // bits/s received from all its sessions; 0 = off
	TCPConnections      int `toml:"tcp_connections" env:"RTCD_RTC_LIMITS_TCPCONNECTIONS" default:"1024"`           // media port
	TCPConnectionsPerIP int `toml:"tcp_connections_per_ip" env:"RTCD_RTC_LIMITS_TCPCONNECTIONSPERIP" default:"32"` // media port
}

// Store is about the folder of registered clients.
type Store struct {
	DataSource string `toml:"data_source" env:"RTCD_STORE_DATASOURCE" default:"./data"`
	MinFreeMiB int    `toml:"min_free_mib" env:"RTCD_STORE_MINFREEMIB" default:"64"`
	MaxClients int    `toml:"max_clients" env:"RTCD_STORE_MAXCLIENTS" default:"10000"`
}

// Logger is about the two log targets.
type Logger struct {
	EnableConsole bool   `toml:"enable_console" env:"RTCD_LOGGER_ENABLECONSOLE" default:"true"`
	ConsoleJSON   bool   `toml:"console_json" env:"RTCD_LOGGER_CONSOLEJSON" default:"false"`
	ConsoleLevel  string `toml:"console_level" env:"RTCD_LOGGER_CONSOLELEVEL" default:"INFO"`
	EnableFile    bool   `toml:"enable_file" env:"RTCD_LOGGER_ENABLEFILE" default:"true"`
	FileJSON      bool   `toml:"file_json" env:"RTCD_LOGGER_FILEJSON" default:"true"`
	FileLevel     string `toml:"file_level" env:"RTCD_LOGGER_FILELEVEL" default:"DEBUG"`
	FileLocation  string `toml:"file_location" env:"RTCD_LOGGER_FILELOCATION" default:"rtcd.log"`
	EnableColor   bool   `toml:"enable_color" env:"RTCD_LOGGER_ENABLECOLOR" default:"false"`
	// RedactAddresses cuts addresses of end users and backends to their networks.
	RedactAddresses bool `toml:"redact_addresses" env:"RTCD_LOGGER_REDACTADDRESSES" default:"false"`
}

// Upgrade is about servers that take over from each other on one host.
type Upgrade struct {
	Socket string `toml:"socket" env:"RTCD_UPGRADE_SOCKET" default:""` // path of a Unix socket; "" = off
}

// Shutdown is about draining.
type Shutdown struct {
	DrainDeadline time.Duration `toml:"drain_deadline" env:"RTCD_SHUTDOWN_DRAINDEADLINE" default:"24h"` // 0 = no limit
}

// Default returns the built-in configuration. All of it is fixed but the number of UDP sockets,
// which follows the number of CPUs.
func Default() Config { return defaults(runtime.NumCPU()) }
