package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// directions returns what the media sections of a description say, by MID.
func directions(t *testing.T, text string) map[string]string {
	t.Helper()
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, m := range d.MediaDescriptions {
		if isMedia(m) {
			mid, _ := m.Attribute(sdp.AttrKeyMID)
			out[mid] = direction(m)
		}
	}
	return out
}

// TestReceiveNothing (TK-24): whatever direction an endpoint offers, the answer does not receive,
// nor is there a stream of a simulcast to send; what others publish is sent to it all the same, and
// our offers do not receive either.
func TestReceiveNothing(t *testing.T) {
	for _, offered := range []string{"sendrecv", "sendonly", "recvonly", "inactive"} {
		t.Run(offered, func(t *testing.T) {
			p := newPeer(t, newEngine(t, nil))
			p.ReceiveNothing()
			offer := strings.ReplaceAll(capture(t, "offer-voice-simulcast"), "a=sendrecv\r\n", "a="+offered+"\r\n")
			answer, err := p.AcceptOffer(offer)
			if err != nil {
				t.Fatal(err)
			}
			got := directions(t, answer)
			if len(got) != 2 {
				t.Fatalf("sections %v, want two", got)
			}
			for mid, way := range got {
				if way != "inactive" && (way != "sendonly" || offered != "recvonly") {
					t.Errorf("section %s of the answer is %q", mid, way)
				}
			}
			if strings.Contains(answer, "a=rid:") || strings.Contains(answer, "a=simulcast:") {
				t.Errorf("the answer takes streams of a simulcast:\n%s", answer)
			}
			if s := p.Sections(); len(s) != 0 {
				t.Errorf("the endpoint may send on %+v", s)
			}
		})
	}
}

// TestReceiveNothingSends (TK-24): an endpoint that may send nothing gets tracks in sections that only
// send, also in one that it made for itself.
func TestReceiveNothingSends(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	p.ReceiveNothing()
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	if _, err := client.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio); err != nil {
		t.Fatal(err)
	}
	clientOffers(t, p, client)
	b := &boundTrack{TrackLocal: local("voice_a_12345678", "a")}
	if _, err := p.AddTrack(b); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, way := range directions(t, exchange(t, p, client)) {
		switch way {
		case "sendonly":
			sent++
		case "inactive":
		default:
			t.Errorf("a section of our offer is %q", way)
		}
	}
	if sent != 1 || len(b.to) != 1 {
		t.Errorf("%d sections send, bound %d times, want 1, 1", sent, len(b.to))
	}
	if s := p.Sections(); len(s) != 0 {
		t.Errorf("the endpoint may send on %+v", s)
	}
	clientOffers(t, p, client) // once more, with the track
	if s := p.Sections(); len(s) != 0 {
		t.Errorf("the endpoint may send on %+v after its offer", s)
	}
}
