package rtc

import (
	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/netio"
)

// mediaSamples is what the data plane and the media sockets have counted, for the metrics.
func (s *Server) mediaSamples() []metrics.Sample {
	plane, port := s.plane.Stats(), s.mux.Stats()
	out := []metrics.Sample{
		{Name: "media_received_packets_total", Help: "RTP packets received, authentic or not.", N: float64(plane.PacketsIn)},
		{Name: "media_received_bytes_total", Help: "Bytes of RTP packets received.", N: float64(plane.BytesIn)},
		{Name: "media_sent_packets_total", Help: "RTP packets sent: forwarded ones, repairs and padding.", N: float64(plane.PacketsOut)},
		{Name: "media_sent_bytes_total", Help: "Bytes of RTP packets sent.", N: float64(plane.BytesOut)},
		{Name: "media_forwarded_packets_total", Help: "RTP packets sent to a receiver for the first time.", N: float64(plane.PacketsOut - plane.Resent - plane.Padding)},
		{Name: "media_resent_packets_total", Help: "RTP packets sent again as receivers asked.", N: float64(plane.Resent)},
		{Name: "media_padding_packets_total", Help: "RTP packets sent to try what a path carries.", N: float64(plane.Padding)},
		{Name: "media_keyframe_requests_total", Help: "Keyframes asked for.", N: float64(plane.Keyframes)},
		{Name: "media_nacks_total", Help: "Requests to senders for packets that did not come.", N: float64(plane.NACKs)},
		{Name: "port_sent_messages_total", Help: "UDP messages sent; a segmented one counts once.", N: float64(port.TxMessages)},
		{Name: "port_gso_fallbacks_total", Help: "Segmented messages that the kernel refused.", N: float64(port.GSOFallbacks)},
		{Name: "port_tcp_connections", Help: "TCP connections of media.", Gauge: true, N: float64(port.TCPConns)},
	}
	out = append(out, s.legSamples(&plane)...)
	out = append(out, s.audienceSamples()...)
	out = append(out, s.waitingSamples()...)
	for state, n := range map[string]int{
		"failing": port.FailingDestinations, "paused": port.PausedDestinations, "unsegmented": port.UnsegmentedDestinations,
	} {
		out = append(out, metrics.Sample{
			Name: "port_destinations", Help: "Destinations that something is wrong with.", Gauge: true,
			Label: "state", Value: state, N: float64(n),
		})
	}
	for _, d := range forward.Drops() {
		out = append(out, metrics.Sample{
			Name: "media_drops_total", Help: "Packets of endpoints that were not forwarded.",
			Label: "reason", Value: d.String(), N: float64(plane.Drops[d]),
		})
	}
	for i, n := range port.Drops {
		out = append(out, metrics.Sample{
			Name: "port_drops_total", Help: "Packets and TCP connections dropped at the sockets.",
			Label: "reason", Value: netio.Drop(i).String(), N: float64(n),
		})
	}
	for i, n := range plane.Feedbacks {
		out = append(out, metrics.Sample{
			Name: "media_feedback_total", Help: "RTCP packets of endpoints.",
			Label: "type", Value: forward.Feedback(i).String(), N: float64(n),
		})
	}
	return out
}
