package metrics

import "slices"

// A LimitInfo says what a limit is, for the operators' manual.
type LimitInfo struct {
	Name    Limit
	Setting string // key of the configuration, or the fixed value
	Meaning string

	packets bool // counted where packets are, see SetLimits
}

// Limits lists all limits that count their hits, by name.
func Limits() []LimitInfo { return slices.Clone(limitTable) }

// LimitsHit returns the limits that were hit, with how often since the start. It costs as much as a
// scrape.
func (m *Metrics) LimitsHit() map[Limit]uint64 {
	out := make(map[Limit]uint64)
	families, _ := m.registry.Gather() // what can be had
	for _, f := range families {
		if f.GetName() != namespace+"_limit_hits_total" {
			continue
		}
		for _, series := range f.GetMetric() {
			n := series.GetCounter().GetValue() + series.GetUntyped().GetValue()
			for _, l := range series.GetLabel() {
				if l.GetName() == "limit" && n > 0 {
					out[Limit(l.GetValue())] += uint64(n)
				}
			}
		}
	}
	return out
}

var limitTable = []LimitInfo{
	{Name: "api_body", Setting: "4 KiB", Meaning: "body of an HTTP request; 413"},
	{Name: "api_connections", Setting: "`api.limits.connections`", Meaning: "TCP connections to a listener; closed"},
	{Name: "api_connections_per_address", Setting: "`api.limits.connections_per_ip`", Meaning: "of those from one address; closed"},
	{Name: "bcrypt_logins", Setting: "half the CPUs, 64 waiting", Meaning: "checks of keys at a time; 429"},
	{Name: "bcrypt_registrations", Setting: "half the CPUs, 64 waiting", Meaning: "registrations at a time; 429"},
	{Name: "bcrypt_rotations", Setting: "half the CPUs, 64 waiting", Meaning: "new keys at a time; 429"},
	{Name: "bitrate_per_client", Setting: "`rtc.limits.bitrate_per_client`", Meaning: "media of one backend's sessions; packets dropped"},
	{Name: "blocks_per_call", Setting: "10,000", Meaning: "streams that moderators have ended and may not come back; the moderation is refused"},
	{Name: "call_events", Setting: "65,536", Meaning: "events of calls that wait for their consumer; more are lost"},
	{Name: "calls", Setting: "`rtc.limits.calls`", Meaning: "calls of the server; the join is refused"},
	{Name: "calls_per_client", Setting: "`rtc.limits.calls_per_client`", Meaning: "calls of one backend; the join is refused"},
	{Name: "data_channel_queue", Setting: "1 MiB", Meaning: "unread messages to an endpoint; the session ends"},
	{Name: "data_channel_rate", Setting: "50 a second, 200 at once", Meaning: "messages of an endpoint; delayed"},
	{Name: "data_channels", Setting: "1", Meaning: "data channels of a session; closed"},
	{Name: "ejected_per_call", Setting: "10,000", Meaning: "people kept out of a call; with more, nobody enters it any more"},
	{Name: "event_streams_per_client", Setting: "fixed", Meaning: "streams of events of one backend; refused"},
	{Name: "failed_logins", Setting: "10 in 30 s", Meaning: "failures of one address or backend; 429 with a delay that grows"},
	{Name: "graces_per_client", Setting: "8", Meaning: "replaced keys that still work; the oldest ends"},
	{Name: "join_tokens", Setting: "500,000", Meaning: "join tokens of all backends; 429"},
	{Name: "join_tokens_per_client", Setting: "100,000", Meaning: "join tokens of one backend; 429"},
	{Name: "joins_per_second", Setting: "`rtc.limits.joins_per_second`", Meaning: "joins of one backend; refused"},
	{Name: "managed_calls_per_client", Setting: "`rtc.limits.calls_per_client`", Meaning: "made calls of one backend; 429"},
	{Name: "max_participants", Setting: "`call.max_participants`", Meaning: "sessions in a call; the join is refused"},
	{Name: "media_control_queue", Setting: "fixed", Meaning: "ICE and DTLS packets that wait; dropped", packets: true},
	{Name: "media_packets_per_source", Setting: "200 a second", Meaning: "ICE and DTLS packets of one unknown source; dropped", packets: true},
	{Name: "media_packets_unknown", Setting: "20,000 a second", Meaning: "ICE and DTLS packets of all unknown sources; dropped", packets: true},
	{Name: "media_sections", Setting: "`rtc.limits.media_sections`", Meaning: "streams that one session is sent; more are not sent"},
	{Name: "offers_per_second", Setting: "5, 20 at once", Meaning: "offers of one endpoint; delayed, the newest counts"},
	{Name: "probe_requests", Setting: "fixed", Meaning: "requests of the probe page; refused"},
	{Name: "probe_tokens", Setting: "fixed", Meaning: "tokens of the probe page that live; refused"},
	{Name: "probes", Setting: "fixed", Meaning: "probes of the probe page at a time; refused"},
	{Name: "registered_clients", Setting: "`store.max_clients`", Meaning: "registered backends; refused"},
	{Name: "remote_candidates", Setting: "`rtc.limits.remote_candidates`", Meaning: "ICE candidates of one session; not used"},
	{Name: "report_writes", Setting: "fixed", Meaning: "reports that wait to be written; more are not kept"},
	{Name: "reports_per_client", Setting: "2 a second, 30 at once", Meaning: "reports that one backend asks for; refused"},
	{Name: "session_messages", Setting: "4,096", Meaning: "messages that wait for one session; it ends"},
	{Name: "session_rate", Setting: "12 Mbit/s, 3,000 packets a second", Meaning: "RTP of one session; dropped", packets: true},
	{Name: "session_rtcp_rate", Setting: "200 a second", Meaning: "RTCP of one session; dropped", packets: true},
	{Name: "session_ssrcs", Setting: "16, and 4 unknown", Meaning: "SSRCs of one session; packets of more dropped", packets: true},
	{Name: "sessions", Setting: "`rtc.limits.sessions`", Meaning: "sessions of the server; the join is refused"},
	{Name: "sessions_per_call", Setting: "`rtc.limits.sessions_per_call`", Meaning: "sessions in a call; the join is refused"},
	{Name: "sessions_per_client", Setting: "`rtc.limits.sessions_per_client`", Meaning: "sessions of one backend; the join is refused"},
	{Name: "setup_time", Setting: "10 s to the first offer, then 20 s", Meaning: "from the join to an open data channel; the session ends"},
	{Name: "tcp_connections", Setting: "`rtc.limits.tcp_connections`", Meaning: "TCP connections to the media port; closed", packets: true},
	{Name: "tcp_connections_per_ip", Setting: "`rtc.limits.tcp_connections_per_ip`", Meaning: "of those from one address; closed", packets: true},
	{Name: "tcp_first_frame", Setting: "5 s", Meaning: "until the first check on a TCP connection; closed", packets: true},
	{Name: "tcp_frame", Setting: "2 KiB", Meaning: "one frame on a TCP connection; closed", packets: true},
	{Name: "tcp_queue", Setting: "fixed", Meaning: "packets that wait for a TCP connection; dropped", packets: true},
	{Name: "tickets", Setting: "16,384", Meaning: "WebSocket tickets of all backends; 429"},
	{Name: "tickets_per_client", Setting: "64", Meaning: "WebSocket tickets of one backend; 429"},
	{Name: "tokens", Setting: "16,384", Meaning: "bearer tokens of all backends; 429"},
	{Name: "tokens_per_call", Setting: "10,000", Meaning: "join tokens of one call; 429"},
	{Name: "tokens_per_minute", Setting: "`call.tokens_per_minute`", Meaning: "join tokens made for one backend; 429"},
	{Name: "used_call_ids", Setting: "fixed", Meaning: "ids of calls that are remembered as used; the call is refused"},
	{Name: "wrong_tokens_per_minute", Setting: "10 from one address", Meaning: "joins with tokens that are wrong; refused"},
	{Name: "ws_connections_per_client", Setting: "`api.limits.ws_connections_per_client`", Meaning: "WebSockets of one backend; refused"},
	{Name: "ws_inbound_rate", Setting: "`api.limits.ws_messages_per_second`", Meaning: "messages on one WebSocket; delayed"},
	{Name: "ws_message_bytes", Setting: "`api.limits.ws_message_bytes`", Meaning: "one WebSocket message; the connection is closed"},
	{Name: "ws_outbound_queue", Setting: "4,096 messages or 8 MiB", Meaning: "messages that wait for one WebSocket; closed"},
	{Name: "ws_parked_messages", Setting: "64 messages or 256 KiB", Meaning: "kept for 90 s for a session whose backend is away; more are lost"},
	{Name: "ws_stall", Setting: "10 s", Meaning: "that a backend takes nothing; the WebSocket is closed"},
}
