package rtc

import (
	"strconv"

	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/netio"
)

// Limits that packets hit, which the data plane and the sockets count.
const (
	LimitSourceRate     metrics.Limit = "media_packets_per_source"
	LimitGlobalRate     metrics.Limit = "media_packets_unknown"
	LimitControlQueue   metrics.Limit = "media_control_queue"
	LimitTCPConnections metrics.Limit = "tcp_connections"
	LimitTCPAddress     metrics.Limit = "tcp_connections_per_ip"
	LimitTCPFirstFrame  metrics.Limit = "tcp_first_frame"
	LimitTCPFrame       metrics.Limit = "tcp_frame"
	LimitTCPQueue       metrics.Limit = "tcp_queue"
	LimitSessionRate    metrics.Limit = "session_rate"
	LimitReportRate     metrics.Limit = "session_rtcp_rate"
	LimitSources        metrics.Limit = "session_ssrcs"
)

// portLimits are the limits behind drops at the sockets.
var portLimits = map[netio.Drop]metrics.Limit{
	netio.DropSourceBudget: LimitSourceRate,
	netio.DropGlobalBudget: LimitGlobalRate,
	netio.DropControlQueue: LimitControlQueue,
	netio.DropConnLimit:    LimitTCPConnections,
	netio.DropConnSource:   LimitTCPAddress,
	netio.DropFirstFrame:   LimitTCPFirstFrame,
	netio.DropFrameSize:    LimitTCPFrame,
	netio.DropStreamQueue:  LimitTCPQueue,
}

// limitHits is what packets have hit so far, for the metrics.
func (s *Server) limitHits() map[metrics.Limit]uint64 {
	plane, port := s.plane.Stats(), s.mux.Stats()
	hits := map[metrics.Limit]uint64{
		LimitSessionRate: plane.Drops[forward.DropRate] - min(plane.RateLimited, plane.Drops[forward.DropRate]),
		LimitReportRate:  plane.RateLimited,
		LimitSources:     plane.TooMany,
	}
	for drop, limit := range portLimits {
		hits[limit] = port.Drops[drop]
	}
	return hits
}

// legSamples tell how packets fare on the way to us, within, and on the way from us.
func (s *Server) legSamples(plane *forward.Stats) []metrics.Sample {
	transit := s.plane.Transit()
	out := []metrics.Sample{{
		Name: "media_transit_seconds", Help: "Seconds from the read of a batch of packets to the send of all that came of it, for each packet in it.",
		Histogram: &metrics.Histogram{Count: transit.Count, Sum: transit.Sum, Buckets: transit.Buckets},
	}}
	for leg, l := range map[string]forward.Loss{"uplink": plane.Uplink, "downlink": plane.Downlink} {
		out = append(out,
			metrics.Sample{Name: "media_leg_packets_total", Help: "Packets that should have come over a leg, as reports tell: from endpoints (uplink), to them (downlink).",
				Label: "leg", Value: leg, N: float64(l.Due)},
			metrics.Sample{Name: "media_leg_lost_packets_total", Help: "Of those, packets that did not come, before repairs.",
				Label: "leg", Value: leg, N: float64(l.Lost)})
	}
	return out
}

// audienceSamples tell what receivers are sent.
func (s *Server) audienceSamples() []metrics.Sample {
	a := s.plane.Audience()
	out := []metrics.Sample{
		{Name: "media_estimated_sessions", Help: "Sessions that are sent videos, for which what their path carries is estimated.", Gauge: true, N: float64(a.Estimated)},
		{Name: "media_limited_sessions", Help: "Of those, sessions that are sent less than there is, for the sake of their path.", Gauge: true, N: float64(a.Limited)},
		{Name: "media_estimate_bytes_per_second", Help: "What the paths of those sessions carry, together.", Gauge: true, N: float64(a.Estimate) / 8},
		{Name: "media_sending_bytes_per_second", Help: "What those sessions are sent, together.", Gauge: true, N: float64(a.Sending) / 8},
	}
	layer := func(source forward.Source, i int) string {
		switch {
		case source == forward.Voice || source == forward.ScreenAudio:
			return "all"
		case i < 0:
			return "none"
		}
		return strconv.Itoa(i)
	}
	for v, n := range a.Views {
		out = append(out, metrics.Sample{
			Name: "media_subscriptions", Help: "Live subscriptions, by the stream of a simulcast that is sent and the one that is wanted: 0 is the smallest.",
			Gauge: true, Label: "source", Value: metricSource(v.Source).String(),
			More: []string{"layer", layer(v.Source, v.Current), "wanted", layer(v.Source, v.Wanted)}, N: float64(n),
		})
	}
	return out
}

// waitingSamples tell what waits for the loops of sessions.
func (s *Server) waitingSamples() []metrics.Sample {
	sum, most := 0, 0
	for _, ses := range s.list(func(key) bool { return true }) {
		n := ses.inbox.waiting()
		sum += n
		most = max(most, n)
	}
	return []metrics.Sample{
		{Name: "rtc_mailbox_messages", Help: "Messages that wait for the loops of sessions.", Gauge: true, N: float64(sum)},
		{Name: "rtc_mailbox_longest_messages", Help: "Of those, messages that wait for one session, where most do.", Gauge: true, N: float64(most)},
		{Name: "rtc_calls", Help: "Live calls.", Gauge: true, N: float64(s.countCalls())},
	}
}

func (s *Server) countCalls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}
