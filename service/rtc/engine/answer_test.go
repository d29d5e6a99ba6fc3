package engine

import (
	"strings"
	"testing"

	"github.com/pion/sdp/v3"
)

// Pion's answer has the candidates already if they were known when it was made.
func TestCandidatesAreAddedOnce(t *testing.T) {
	const one, two = "1 1 udp 2130706431 192.0.2.1 8443 typ host", "2 1 tcp 1671430143 192.0.2.1 8443 typ host tcptype passive"
	ours := &sdp.SessionDescription{MediaDescriptions: []*sdp.MediaDescription{
		{Attributes: []sdp.Attribute{{Key: sdp.AttrKeyMID, Value: "0"}, {Key: "candidate", Value: one}}},
		{Attributes: []sdp.Attribute{{Key: sdp.AttrKeyMID, Value: "1"}}},
	}}
	text := strings.Join([]string{"v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=candidate:" + one, "a=candidate:" + two,
		"candidate:3", "a=end-of-candidates", "m=video 9 UDP/TLS/RTP/SAVPF 96", ""}, "\r\n")
	for range 2 {
		addCandidates(ours, text)
		if got := len(ours.MediaDescriptions[0].Attributes); got != 4 {
			t.Fatalf("%v", ours.MediaDescriptions[0].Attributes)
		}
		if got := len(ours.MediaDescriptions[1].Attributes); got != 1 {
			t.Fatalf("%v", ours.MediaDescriptions[1].Attributes)
		}
	}
	addCandidates(&sdp.SessionDescription{}, text)
}
