package main

import "strings"

// rows are the groups of the dashboard, the most urgent first.
var rows = []row{
	{"Health at a glance", []panel{
		{"Servers", "Servers that answer Prometheus.", "short", true, []query{{`sum(up{@} * on (instance) group_left () (rtcd_build_info{@} > bool 0))`, "up"}}},
		{"Calls", "Live calls.", "short", true, []query{{`sum(rtcd_rtc_calls{@})`, "calls"}}},
		{"Sessions", "Live sessions.", "short", true, []query{{`sum(rtcd_rtc_sessions_total{@group})`, "sessions"}}},
		{"Draining", "Servers that take no new calls.", "short", true, []query{{`sum(rtcd_draining{@})`, "draining"}}},
		{"Uplink loss", "Of packets from endpoints, in 5 minutes.", "percentunit", true, []query{{leg("uplink"), "lost"}}},
		{"Downlink loss", "Of packets to endpoints, in 5 minutes.", "percentunit", true, []query{{leg("downlink"), "lost"}}},
		{"Transit, p99", "Time that 99 % of packets stay in the server at most.", "s", true, []query{{`histogram_quantile(0.99, sum(rate(rtcd_media_transit_seconds_bucket{@}[@range])) by (le))`, "p99"}}},
		{"CPU", "Processors in use.", "short", true, []query{{`sum(rate(rtcd_process_cpu_seconds_total{@}[@range]))`, "cores"}}},
		{"Memory", "Resident.", "bytes", true, []query{{`sum(rtcd_process_resident_memory_bytes{@})`, "resident"}}},
		{"Files", "Of the file descriptors that there may be, where most are open.", "percentunit", true, []query{{`max(rtcd_process_open_fds{@} / rtcd_process_max_fds{@})`, "open"}}},
		{"Certificate", "Until the first certificate expires; nothing without TLS.", "s", true, []query{{`min(rtcd_tls_cert_expiry_seconds{@})`, "left"}}},
		{"Store space", "Free space of the store's volume.", "bytes", true, []query{{`min(rtcd_store_free_bytes{@})`, "free"}}},
	}},
	{"Calls and sessions", []panel{
		{"Sessions by tenant", "Live sessions.", "short", false, []query{{`sum(rtcd_rtc_sessions_total{@group}) by (groupID)`, "{{groupID}}"}}},
		{"Calls", "Live calls.", "short", false, []query{{`sum(rtcd_rtc_calls{@}) by (instance)`, "{{instance}}"}}},
		{"Tracks", "Live tracks: in from endpoints, out to them.", "short", false, []query{{`sum(rtcd_rtc_rtp_tracks_total{@group}) by (direction, type)`, "{{direction}} {{type}}"}}},
		{"Connection states", "Changes of peer connections.", "ops", false, []query{{`sum(rate(rtcd_rtc_conn_states_total{@}[@range])) by (type)`, "{{type}}"}}},
		{"Time to connect", "From join to connected.", "s", false, quantiles("rtcd_rtc_connection_time", "@group", "")},
		{"Errors of sessions", "By kind; ice means that a session ended because of it.", "ops", false, []query{{`sum(rate(rtcd_rtc_errors_total{@group}[@range])) by (type)`, "{{type}}"}}},
		{"ICE restarts", "Offered by the server.", "ops", false, []query{{`sum(rate(rtcd_rtc_ice_restarts_total{@}[@range])) by (outcome)`, "{{outcome}}"}}},
	}},
	{"Quality by leg", []panel{
		{"Loss by leg", "Before repairs. Uplink: what endpoints sent and we did not get. Downlink: what we sent and endpoints report missing.", "percentunit", false, []query{
			{`sum(rate(rtcd_media_leg_lost_packets_total{@}[@range])) by (leg) / (sum(rate(rtcd_media_leg_packets_total{@}[@range])) by (leg) > 0)`, "{{leg}}"}}},
		{"Transit in the server", "From the read of a packet from the socket to the send of what came of it.", "s", false, quantiles("rtcd_media_transit_seconds", "@", "")},
		{"Loss as end users report it", "0 to 1.", "percentunit", false, quantiles("rtcd_rtc_client_loss_rate", "@group", "")},
		{"Round-trip time as end users report it", "To the server and back.", "s", false, quantiles("rtcd_rtc_client_rtt", "@group", "")},
		{"Jitter as end users report it", "", "s", false, quantiles("rtcd_rtc_client_jitter", "@group", "")},
		{"Repairs", "Packets sent again, NACKs to us and from us.", "pps", false, []query{
			{`sum(rate(rtcd_media_resent_packets_total{@}[@range]))`, "sent again"},
			{`sum(rate(rtcd_media_feedback_total{@,type="nack"}[@range]))`, "NACKs received"},
			{`sum(rate(rtcd_media_nacks_total{@}[@range]))`, "NACKs sent"}}},
		{"Keyframe requests", "Of receivers, and what of them went on to senders.", "ops", false, []query{
			{`sum(rate(rtcd_media_feedback_total{@,type=~"pli|fir"}[@range])) by (type)`, "{{type}} received"},
			{`sum(rate(rtcd_media_keyframe_requests_total{@}[@range]))`, "sent"}}},
		{"Layers sent", "Subscriptions to videos, by the stream of a simulcast that is sent.", "short", false, []query{{`sum(rtcd_media_subscriptions{@,source=~"video|screen"}) by (source, layer)`, "{{source}} {{layer}}"}}},
		{"Layers that wait", "Subscriptions that are to be sent another stream than they are.", "short", false, []query{{`sum(rtcd_media_subscriptions{@,source=~"video|screen"}) - ((sum(rtcd_media_subscriptions{@,source=~"video|screen",layer="none",wanted="none"}) or vector(0)) + (sum(rtcd_media_subscriptions{@,source=~"video|screen",layer="0",wanted="0"}) or vector(0)) + (sum(rtcd_media_subscriptions{@,source=~"video|screen",layer="1",wanted="1"}) or vector(0)) + (sum(rtcd_media_subscriptions{@,source=~"video|screen",layer="2",wanted="2"}) or vector(0)) + (sum(rtcd_media_subscriptions{@,source=~"video|screen",layer="3",wanted="3"}) or vector(0)))`, "waiting"}}},
		{"Estimates", "What the paths of sessions that get videos carry, and what they are sent.", "bps", false, []query{
			{`8 * sum(rtcd_media_estimate_bytes_per_second{@})`, "estimate"}, {`8 * sum(rtcd_media_sending_bytes_per_second{@})`, "sent"}}},
		{"Limited sessions", "Sessions that get less of videos than there is, for the sake of their path.", "short", false, []query{
			{`sum(rtcd_media_limited_sessions{@})`, "limited"}, {`sum(rtcd_media_estimated_sessions{@})`, "all with videos"}}},
	}},
	{"Data plane cost", []panel{
		{"Packets", "RTP.", "pps", false, []query{
			{`sum(rate(rtcd_media_received_packets_total{@}[@range]))`, "in"}, {`sum(rate(rtcd_media_forwarded_packets_total{@}[@range]))`, "forwarded"},
			{`sum(rate(rtcd_media_padding_packets_total{@}[@range]))`, "padding"}}},
		{"Bits", "RTP.", "bps", false, []query{
			{`8 * sum(rate(rtcd_media_received_bytes_total{@}[@range]))`, "in"}, {`8 * sum(rate(rtcd_media_sent_bytes_total{@}[@range]))`, "out"}}},
		{"CPU for a packet sent", "Of the whole process.", "s", false, []query{{`sum(rate(rtcd_process_cpu_seconds_total{@}[@range])) / (sum(rate(rtcd_media_sent_packets_total{@}[@range])) > 0)`, "each"}}},
		{"Packets per message", "More than one where the kernel segments.", "short", false, []query{{`sum(rate(rtcd_media_sent_packets_total{@}[@range])) / (sum(rate(rtcd_port_sent_messages_total{@}[@range])) > 0)`, "packets"}}},
		{"Time to write a packet to all", "By source.", "s", false, quantiles("rtcd_rtc_rtp_tracks_writes_time", "@group", "type")},
		{"Packets not forwarded", "Of endpoints, by reason.", "pps", false, []query{{`sum(rate(rtcd_media_drops_total{@}[@range])) by (reason) > 0 or sum(rate(rtcd_media_drops_total{@}[@range]))`, "{{reason}}"}}},
		{"Drops at the sockets", "By reason.", "pps", false, []query{{`sum(rate(rtcd_port_drops_total{@}[@range])) by (reason) > 0 or sum(rate(rtcd_port_drops_total{@}[@range]))`, "{{reason}}"}}},
		{"Destinations in trouble", "Addresses that packets do not get to.", "short", false, []query{{`sum(rtcd_port_destinations{@}) by (state)`, "{{state}}"}}},
		{"TCP", "Connections of media.", "short", false, []query{{`sum(rtcd_port_tcp_connections{@})`, "connections"}}},
		{"Segmentation refused", "Segmented messages that the kernel refused.", "ops", false, []query{{`sum(rate(rtcd_port_gso_fallbacks_total{@}[@range]))`, "refused"}}},
	}},
	{"Signalling", []panel{
		{"Negotiation", "From an offer to its answer: in of endpoints, out of ours. 95 %.", "s", false, []query{{`histogram_quantile(0.95, sum(rate(rtcd_rtc_negotiation_seconds_bucket{@}[@range])) by (le, direction))`, "{{direction}}"}}},
		{"Negotiations", "Offers that were answered.", "ops", false, []query{{`sum(rate(rtcd_rtc_negotiation_seconds_count{@}[@range])) by (direction)`, "{{direction}}"}}},
		{"Data channel", "From the first answer to the open channel.", "s", false, quantiles("rtcd_rtc_dc_open_time", "@group", "")},
		{"Wait for the lock", "Of the server.", "s", false, quantiles("rtcd_rtc_signaling_lock_grab_time", "@group", "")},
		{"Lock held", "By server and endpoint.", "s", false, quantiles("rtcd_rtc_signaling_lock_locked_time", "@group", "")},
		{"Mailboxes", "Messages that wait for the loops of sessions.", "short", false, []query{
			{`sum(rtcd_rtc_mailbox_messages{@})`, "all"}, {`max(rtcd_rtc_mailbox_longest_messages{@})`, "longest"}}},
		{"WebSocket messages", "By tenant and direction.", "ops", false, []query{{`sum(rate(rtcd_ws_messages_total{@client}[@range])) by (clientID, direction)`, "{{clientID}} {{direction}}"}}},
		{"WebSocket connections", "By tenant.", "short", false, []query{{`sum(rtcd_ws_connections_total{@client}) by (clientID)`, "{{clientID}}"}}},
	}},
	{"Limits and refusals", []panel{
		{"Limit hits", "What each limit refused or delayed.", "ops", false, []query{{`sum(rate(rtcd_limit_hits_total{@}[@range])) by (limit)`, "{{limit}}"}}},
		{"WebSocket input without effect", "By reason.", "ops", false, []query{{`sum(rate(rtcd_ws_discarded_total{@}[@range])) by (reason)`, "{{reason}}"}}},
		{"Faults of requests", "Recovered; should stay 0.", "short", false, []query{{`sum(increase(rtcd_api_panics_total{@}[@range]))`, "panics"}}},
	}},
	{"Store, audit, feed", []panel{
		{"Store", "Space of the volume and of the store.", "bytes", false, []query{
			{`sum(rtcd_store_free_bytes{@}) by (instance)`, "{{instance}} free"}, {`sum(rtcd_store_size_bytes{@}) by (instance)`, "{{instance}} used"},
			{`sum(rtcd_store_min_free_bytes{@}) by (instance)`, "{{instance}} least"}}},
		{"Backends", "Registered.", "short", false, []query{{`sum(rtcd_store_clients{@}) by (instance)`, "{{instance}}"}}},
		{"Audit events", "Written, and lost.", "ops", false, []query{
			{`sum(rate(rtcd_audit_events_total{@}[@range]))`, "written"}, {`sum(rate(rtcd_audit_dropped_events_total{@}[@range]))`, "lost"},
			{`sum(rate(rtcd_audit_write_errors_total{@}[@range]))`, "write errors"}}},
		{"Audit queue", "Events that wait to be written.", "short", false, []query{
			{`sum(rtcd_audit_queued_events{@})`, "to be written"}, {`max(rtcd_audit_failing{@})`, "failing"}}},
		{"Audit sinks", "Events not delivered yet, by sink.", "short", false, []query{{`sum(rtcd_audit_sink_unsent_events{@}) by (sink)`, "{{sink}}"}}},
		{"Event feed", "Events of calls, and lost ones.", "ops", false, []query{
			{`sum(rate(rtcd_events_total{@}[@range]))`, "events"}, {`sum(rate(rtcd_events_lost_total{@}[@range]))`, "lost"}}},
		{"Event log", "On disk and in memory.", "bytes", false, []query{
			{`sum(rtcd_events_disk_bytes{@})`, "disk"}, {`sum(rtcd_events_memory_bytes{@})`, "memory"}}},
		{"Webhooks", "Events that receivers have not taken yet.", "short", false, []query{{`sum(rtcd_webhook_unsent_events{@}) by (webhook)`, "{{webhook}}"}}},
		{"Webhook failures", "Attempts to deliver that failed.", "ops", false, []query{{`sum(rate(rtcd_webhook_failures_total{@}[@range])) by (webhook)`, "{{webhook}}"}}},
	}},
	{"Go runtime", []panel{
		{"Goroutines", "", "short", false, []query{{`sum(go_goroutines{@}) by (instance)`, "{{instance}}"}}},
		{"Heap", "In use.", "bytes", false, []query{{`sum(go_memstats_heap_inuse_bytes{@}) by (instance)`, "{{instance}}"}}},
		{"Garbage collection", "Longest pause.", "s", false, []query{{`max(go_gc_duration_seconds{@,quantile="1"}) by (instance)`, "{{instance}}"}}},
		{"Allocations", "", "Bps", false, []query{{`sum(rate(go_memstats_alloc_bytes_total{@}[@range])) by (instance)`, "{{instance}}"}}},
		{"Version", "What runs.", "short", false, []query{{`sum(rtcd_build_info{@}) by (version, revision, goversion)`, "{{version}} {{revision}} {{goversion}}"}}},
	}},
}

// leg is the loss of one leg as one number.
func leg(name string) string {
	const of = `sum(increase(rtcd_media_leg_%packets_total{@,leg="` + "LEG" + `"}[5m]))`
	return replace(of, "%", "lost_", "LEG", name) + " / (" + replace(of, "%", "", "LEG", name) + " > 0)"
}

// quantiles are the median and the 95th and 99th percentile of a histogram.
func quantiles(name, match, by string) []query {
	label := ""
	if by != "" {
		label, by = "{{"+by+"}} ", ", "+by
	}
	var out []query
	for _, q := range []string{"0.5", "0.95", "0.99"} {
		out = append(out, query{
			replace(`histogram_quantile(Q, sum(rate(NAME_bucket{MATCH}[@range])) by (leBY))`, "Q", q, "NAME", name, "MATCH", match, "BY", by),
			label + "p" + q[2:],
		})
	}
	return out
}

// replace replaces by pairs of old and new.
func replace(s string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(s) }
