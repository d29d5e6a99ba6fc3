package doctor

// A kind is one line of the table of findings.
type kind struct {
	id       string
	severity Severity
	when     string // it is found, for the manual
	why, fix string
}

// Names of findings. They do not change: people search for them.
const (
	configInvalid = "config_invalid"
	configWarning = "config_warning"

	storeOnTmpfs       = "store_on_tmpfs"
	storeNoSpace       = "store_no_space"
	storeLowSpace      = "store_low_space"
	storeWorldWritable = "store_world_writable"
	storeParentOpen    = "store_parent_writable"
	storeWorldReadable = "store_world_readable"
	storeNotWritable   = "store_not_writable"
	recordsOnTmpfs     = "records_on_tmpfs"

	serverRunning   = "server_running"
	apiPortTaken    = "api_port_taken"
	adminPortTaken  = "admin_port_taken"
	mediaPortTaken  = "media_port_taken"
	addressNotLocal = "address_not_local"
	portPrivileged  = "port_privileged"

	candidateInContainer = "candidate_only_in_container"
	candidatePrivate     = "candidates_private"
	mediaLoopback        = "media_loopback_only"
	mediaIPv6Only        = "media_ipv6_only"
	overrideUnresolvable = "override_unresolvable"
	overrideUnreachable  = "override_unreachable"
	overridePrivate      = "override_private"
	overrideNotLocal     = "override_pair_not_local"
	overrideUnused       = "override_unused"
	overridePort         = "override_port_mismatch"

	ipv6Disabled  = "ipv6_disabled_in_kernel"
	ipv6LinkLocal = "ipv6_link_local_only"
	ipv6NoAddress = "ipv6_no_address"
	ipv6NoRoute   = "ipv6_no_route"

	certUnreadable  = "certificate_unreadable"
	certKeyMismatch = "certificate_key_mismatch"
	certExpired     = "certificate_expired"
	certExpiring    = "certificate_expires_soon"
	certNotYet      = "certificate_not_yet_valid"
	certName        = "certificate_name_mismatch"
	certWeak        = "certificate_weak"

	selfRegistration = "self_registration_public"
	plainHTTP        = "plain_http_public"
	adminPublic      = "admin_public"
	adminSecretWeak  = "admin_secret_weak"

	clockUnsynchronised = "clock_unsynchronised"
	clockImplausible    = "clock_implausible"
	clockOff            = "clock_off"
	clockUnchecked      = "clock_unchecked"

	buffersSmall     = "socket_buffers_small"
	filesLow         = "open_files_low"
	conntrackSmall   = "conntrack_small"
	conntrackFull    = "conntrack_full"
	memorySmall      = "memory_limit_small"
	memoryGoLimit    = "gomemlimit_above_limit"
	memoryGoUnset    = "gomemlimit_unset"
	memoryGoSmall    = "gomemlimit_small"
	cpuQuotaSmall    = "cpu_quota_small"
	stunUnreachable  = "stun_unreachable"
	auditUnreachable = "audit_sink_unreachable"
	hookUnreachable  = "webhook_unreachable"
)

// kinds has all findings there can be.
var kinds = []kind{
	{configInvalid, Error, "a value of file or environment breaks a rule",
		"The server does not start with it.",
		"Change the key that is named; `rtcd config check` says all that is wrong."},
	{configWarning, Warning, "file or environment hold an unknown name, or a value that was surely not meant",
		"It has no effect, another one than was meant, or is weak: mode `production` refuses that.",
		"Change or remove what is named; `rtcd config check` says the same."},

	{storeOnTmpfs, Error, "the folder of the store is on tmpfs or ramfs",
		"After a restart of the machine or container every backend has to register again: what is stored is gone.",
		"Set `store.data_source` to a folder on a disk, in a container to one on a volume."},
	{storeNoSpace, Error, "the volume of the store has less than `store.min_free_mib` free",
		"The server writes no more: backends cannot register, keys cannot be changed.",
		"Free space on the volume, or move `store.data_source` to a larger one."},
	{storeLowSpace, Warning, "the volume of the store has less than four times `store.min_free_mib` free",
		"Below `store.min_free_mib` the server writes no more.",
		"Free space on the volume, or move `store.data_source` to a larger one."},
	{storeWorldWritable, Error, "every user of the machine may write to the folder of the store",
		"Any of them can replace the keys of backends, and so be one.",
		"`chmod o-w` the folder of `store.data_source`; better, `chmod 700`."},
	{storeParentOpen, Error, "a folder above the store's is writable for every user, without the sticky bit",
		"Any of them can move the store away and put another in its place.",
		"`chmod o-w` the folder that is named, or set `store.data_source` to another place."},
	{storeWorldReadable, Warning, "every user of the machine may read files of the store",
		"They hold the hashes of the keys of backends, which can be guessed at without limit.",
		"`chmod -R o-rwx` the folder of `store.data_source`."},
	{storeNotWritable, Error, "the user who runs this may not write to the folder of the store",
		"A server of this user does not start.",
		"Give the folder of `store.data_source` to the user of the server (`chown`); if that is another user, run `rtcd doctor` as him."},
	{recordsOnTmpfs, Warning, "the folder of the audit record, or of the log of events, is on tmpfs or ramfs",
		"What is recorded there is gone after a restart of the machine or container, and takes memory until then.",
		"Set `audit.dir` or `events.dir` to a folder on a disk, in a container to one on a volume."},

	{serverRunning, Info, "a server runs at the address of the API",
		"Its own ports are taken by itself, so they were not looked at.",
		"Nothing, if it is yours. Stop it to check the ports, too."},
	{apiPortTaken, Error, "another program listens where the API should",
		"The server does not start.",
		"Stop the other program, or change `api.http.listen_address`."},
	{adminPortTaken, Error, "another program listens where the admin listener should",
		"With an address that was asked for the server does not start; with the default one it runs without metrics and administration.",
		"Stop the other program, or change `api.admin.listen_address`."},
	{mediaPortTaken, Error, "another program has a port of media",
		"The server does not start.",
		"Stop the other program, or change `rtc.ice_port_udp` or `rtc.ice_port_tcp`."},
	{addressNotLocal, Error, "an address to listen on is none of this machine's",
		"The server does not start: nobody could reach it there.",
		"Name an address that `ip address` shows, in the key that is named. An external address belongs into `rtc.ice_host_override`."},
	{portPrivileged, Error, "the user who runs this may not listen on a port below 1024",
		"The server does not start.",
		"Use a higher port, or give the right: `AmbientCapabilities=CAP_NET_BIND_SERVICE` in the systemd unit, or `setcap cap_net_bind_service+ep` on the program."},

	{candidateInContainer, Error, "in a container, all addresses that end users are told are private, and nothing says another one",
		"End users outside of it are sent to addresses that lead nowhere: calls connect for nobody.",
		"Set `rtc.ice_host_override` to the address of the host and publish the media ports, use the network of the host (`--network host`, `hostNetwork: true`), or name a STUN server in `rtc.ice_servers`."},
	{candidatePrivate, Info, "all addresses that end users are told are private",
		"Only end users of the same private network reach them.",
		"If others should, too: forward the media ports and set `rtc.ice_host_override` to the external address."},
	{mediaLoopback, Info, "media listens on loopback addresses alone",
		"Only programs of this machine reach it.",
		"For end users elsewhere set `rtc.ice_address_udp` and `rtc.ice_address_tcp` to other addresses, or leave them empty."},
	{mediaIPv6Only, Warning, "media listens on IPv6 addresses alone",
		"End users whose network has IPv4 only do not connect.",
		"Add an IPv4 address to `rtc.ice_address_udp` and `rtc.ice_address_tcp`, or leave them empty."},
	{overrideUnresolvable, Error, "the name in `rtc.ice_host_override` has no address",
		"Each session ends when it begins: there is no address to tell its endpoint.",
		"Correct the name in `rtc.ice_host_override`, or the name server; or set it to the address itself."},
	{overrideUnreachable, Error, "`rtc.ice_host_override` is, or its name resolves to, a loopback, link-local or multicast address",
		"End users are sent to their own machine, or to none.",
		"Set `rtc.ice_host_override` to the address under which end users reach this machine. Look into `/etc/hosts` for the name."},
	{overridePrivate, Warning, "`rtc.ice_host_override` is a private address, while the machine itself has, or another pair tells, a public one",
		"End users are sent to an address that most of them do not reach instead of to one that they do.",
		"Set `rtc.ice_host_override` to the public address, or leave it empty."},
	{overrideNotLocal, Error, "the internal address of a pair of `rtc.ice_host_override` is none that media listens on",
		"The pair has no effect: end users are told the local address.",
		"Name the addresses that `rtcd config check -ports` shows behind the slash, external/internal."},
	{overrideUnused, Warning, "`rtc.ice_host_override` is of a family of which media has no address",
		"The override has no effect.",
		"Set `rtc.enable_ipv6`, or name an address of the other family."},
	{overridePort, Warning, "none of the addresses in `rtc.ice_host_port_override` is of this machine",
		"End users are told the port that is listened on, not the one that is forwarded.",
		"Add this machine's address to `rtc.ice_host_port_override`, as localIP/port."},

	{ipv6Disabled, Warning, "`rtc.enable_ipv6` is on, but IPv6 is off in the kernel",
		"There are no IPv6 candidates.",
		"`sysctl -w net.ipv6.conf.all.disable_ipv6=0`, or turn `rtc.enable_ipv6` off."},
	{ipv6LinkLocal, Warning, "`rtc.enable_ipv6` is on, but the only IPv6 addresses are link-local",
		"Those are not told to end users, so there are no IPv6 candidates.",
		"Give the machine a global IPv6 address, or turn `rtc.enable_ipv6` off."},
	{ipv6NoAddress, Warning, "`rtc.enable_ipv6` is on, but there is no IPv6 address",
		"There are no IPv6 candidates.",
		"Give the machine a global IPv6 address, or turn `rtc.enable_ipv6` off."},
	{ipv6NoRoute, Warning, "`rtc.enable_ipv6` is on and there is a global IPv6 address, but no default route",
		"End users try IPv6 candidates that never answer, and connect later than they could.",
		"Set the route (`ip -6 route`), or turn `rtc.enable_ipv6` off."},

	{certUnreadable, Error, "the certificate, or its key, cannot be read",
		"The server does not start.",
		"Correct `api.http.tls.cert_file` and `api.http.tls.cert_key`, or the rights of the files."},
	{certKeyMismatch, Error, "the key is not the certificate's",
		"The server does not start.",
		"Set `api.http.tls.cert_key` to the key with which the certificate was requested."},
	{certExpired, Error, "the certificate has expired",
		"Backends refuse it.",
		"Renew it; the server reads the files again when they change."},
	{certExpiring, Warning, "the certificate expires in less than 14 days",
		"Backends refuse it then.",
		"Renew it; the server reads the files again when they change. Look why that does not happen by itself."},
	{certNotYet, Error, "the certificate is not valid yet",
		"Backends refuse it until then.",
		"Look at the clock of the machine, or use another certificate."},
	{certName, Warning, "the certificate is not for the name or address in `api.http.listen_address` or `rtc.ice_host_override`",
		"Backends that connect to it under that name refuse it.",
		"Get a certificate with that name, or change the address. If backends use a third name for which it is valid, this is nothing."},
	{certWeak, Warning, "the key of the certificate is too short (RSA below 2048 bits, elliptic curves below 256), or it is signed with SHA-1 or MD5",
		"Who has the means can pretend to be this server; many clients refuse it.",
		"Get a certificate with an ECDSA P-256 or RSA 2048 key, signed with SHA-256."},

	{selfRegistration, Warning, "anybody who reaches the API may register himself, and others than this machine reach it",
		"Any of them gets calls, bandwidth and memory of this server.",
		"Turn `api.security.allow_self_registration` off and add backends with `rtcd client add`; or set `api.security.registration_token`, `api.security.registration_cidrs` or `api.http.tls.client_auth = \"require\"`."},
	{plainHTTP, Warning, "the API is without TLS on an address that others than this machine reach, and no proxy in front of it is named",
		"Keys and tokens of backends can be read on the way.",
		"Turn `api.http.tls.enable` on; or let a proxy encrypt, and name it in `api.http.trusted_proxies`; or listen on a loopback address."},
	{adminPublic, Error, "the admin listener is on an address that others than this machine reach, without TLS or without the admin key",
		"Profiles and metrics are open to anybody, and the admin key can be read on the way.",
		"Set `api.admin.listen_address` to a loopback address; or turn `api.admin.tls.enable` and `api.security.enable_admin` on."},
	{adminSecretWeak, Error, "the admin key can be guessed",
		"Who guesses it rules over all backends.",
		"Set `api.security.admin_secret_key` to a random one: `openssl rand -base64 32`."},

	{clockUnsynchronised, Warning, "the kernel says that its clock is not kept in step",
		"A clock that drifts makes tokens and certificates invalid, and logs of several machines do not fit together.",
		"Run a time service (chrony, systemd-timesyncd, ntpd) and look at `timedatectl`."},
	{clockImplausible, Error, "the clock shows a year before 2025 or after 2100",
		"Certificates are not valid, and tokens expire at once or never.",
		"Set the clock, and run a time service."},
	{clockOff, Error, "the clock is more than 5 s off that of the NTP server (with `-online`)",
		"Tickets, tokens and certificates are judged by the wrong time, and logs do not fit those of other machines.",
		"Run a time service (chrony, systemd-timesyncd, ntpd) and look at `timedatectl`."},
	{clockUnchecked, Info, "the NTP server did not answer (with `-online`)",
		"Whether the clock is right was not looked at.",
		"Name a server that this machine may ask: `rtcd doctor -online -ntp HOST`."},

	{buffersSmall, Warning, "the kernel grants less than 4 MiB of buffer to a media socket",
		"Bursts of many senders are lost: voices crackle, pictures freeze.",
		"`sysctl -w net.core.rmem_max=16777216 net.core.wmem_max=16777216`, and in `/etc/sysctl.d` for the next start of the machine."},
	{filesLow, Warning, "the process may open fewer files than the limits of the configuration allow connections",
		"When they are used up, new connections are refused, and the log cannot be rotated.",
		"`LimitNOFILE=65536` in the systemd unit, `--ulimit nofile=65536` for a container, or lower `api.limits.connections` and `rtc.limits.tcp_connections`."},
	{conntrackSmall, Warning, "the firewall of the machine tracks at most 16,384 connections",
		"Each end user takes some; beyond the limit packets of new ones are lost.",
		"`sysctl -w net.netfilter.nf_conntrack_max=262144`, or exempt the media ports (`notrack`)."},
	{conntrackFull, Error, "the table of connections of the firewall is at least 90 % full",
		"When it is full, packets of new end users are lost.",
		"`sysctl -w net.netfilter.nf_conntrack_max=262144`, or exempt the media ports (`notrack`)."},
	{memorySmall, Warning, "the memory limit of the container or unit is below 256 MiB",
		"With some hundred sessions the kernel kills the server, and all calls end.",
		"Raise the limit: `MemoryMax=` of the unit, `--memory` or `resources.limits.memory` of the container."},
	{memoryGoLimit, Warning, "GOMEMLIMIT is higher than the memory limit of the container or unit",
		"The server does not know when to save: the kernel kills it, and all calls end.",
		"Set GOMEMLIMIT to nine tenths of the limit."},
	{memoryGoUnset, Info, "the container or unit has a memory limit, and GOMEMLIMIT is not set",
		"The server collects garbage as if it had all memory of the machine; near the limit the kernel may kill it.",
		"Set GOMEMLIMIT to nine tenths of the limit."},
	{memoryGoSmall, Warning, "GOMEMLIMIT is below 64 MiB",
		"The server collects garbage all the time, which takes the CPU that packets need.",
		"Raise GOMEMLIMIT, or unset it."},
	{cpuQuotaSmall, Warning, "the container or unit may use less than one CPU",
		"The kernel stops the server many times a second: voices crackle, though the CPU seems idle.",
		"Raise `CPUQuota=` of the unit, `--cpus` or `resources.limits.cpu` of the container to 1 or more, or remove the limit."},

	{stunUnreachable, Error, "the STUN server of `rtc.ice_servers` does not answer (with `-online`)",
		"The server does not learn its external address, and tells end users its local ones.",
		"Look at the name, the port and the firewall for UDP; or set `rtc.ice_host_override`, with which no STUN server is asked."},
	{auditUnreachable, Warning, "a server that audit events are to be sent to does not accept connections (with `-online`)",
		"Events wait on disk, and beyond the limit of the spool they are not sent.",
		"Look at `audit.sink`, the other server, and the firewall between."},
	{hookUnreachable, Warning, "the server of a webhook does not accept connections (with `-online`)",
		"Its events wait, and when the log of events is full or old enough the oldest are lost to it.",
		"Look at the URL in `webhook`, the other server, and the firewall between."},
}

// kindOf returns the kind with that name. There is one: names are constants of ours.
func kindOf(id string) *kind {
	for i := range kinds {
		if kinds[i].id == id {
			return &kinds[i]
		}
	}
	panic("doctor: no such finding: " + id)
}
