package engine

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/forward"
)

var (
	opusCodec   = forward.Codec{PayloadType: 111, Mime: "audio/opus", Fmtp: "minptime=10;useinbandfec=1", ClockRate: 48000}
	videoFormat = []forward.Codec{
		{PayloadType: 96, Mime: "video/VP8", ClockRate: 90000}, repairOf(97, 96),
		{PayloadType: 45, Mime: "video/AV1", ClockRate: 90000}, repairOf(46, 45),
		{PayloadType: 98, Mime: "video/VP9", Fmtp: "profile-id=0", ClockRate: 90000}, repairOf(99, 98),
		{PayloadType: 106, Mime: "video/H264", Fmtp: h264("42e01f"), ClockRate: 90000}, repairOf(107, 106),
		{PayloadType: 112, Mime: "video/H264", Fmtp: h264("64001f"), ClockRate: 90000}, repairOf(113, 112),
	}
)

func repairOf(pt, of uint8) forward.Codec {
	return forward.Codec{PayloadType: pt, Mime: "video/rtx", Fmtp: fmt.Sprintf("apt=%d", of), ClockRate: 90000, Repairs: of}
}

func voiceSection() Section {
	return Section{
		Uplink: forward.Uplink{
			MID: "1", Audio: true, Codecs: []forward.Codec{opusCodec},
			SSRCs: []uint32{156818350}, Ext: forward.Extensions{AudioLevel: 5, TWCC: 4},
		},
		StreamID: "voice_sess4x", TrackID: "audio",
	}
}

func videoSection() Section {
	return Section{
		Uplink: forward.Uplink{
			MID: "2", Codecs: videoFormat,
			SSRCs:   []uint32{4104660340, 3673522628, 1219626867, 3895314775},
			REMB:    true,
			Repairs: map[uint32]uint32{3673522628: 4104660340, 3895314775: 1219626867},
			RIDs:    []string{"l", "h"},
			Ext:     forward.Extensions{MID: 1, RID: 2, RepairRID: 3, TWCC: 4},
		},
		StreamID: "sim", TrackID: "video",
	}
}

// TestSectionsOfOffer: what an offer, the captured one or a variant of it, lets the endpoint send.
func TestSectionsOfOffer(t *testing.T) {
	replace := func(pairs ...string) func(string) string {
		return func(sdp string) string {
			for i := 0; i < len(pairs); i += 2 {
				if !strings.Contains(sdp, pairs[i]) {
					panic("the captured offer has no " + pairs[i])
				}
			}
			return strings.NewReplacer(pairs...).Replace(sdp)
		}
	}
	// inAudio changes the audio section alone.
	inAudio := func(change func(string) string) func(string) string {
		return func(sdp string) string {
			head, rest, _ := strings.Cut(sdp, "m=audio")
			audio, tail, _ := strings.Cut(rest, "m=video")
			return head + "m=audio" + change(audio) + "m=video" + tail
		}
	}
	with := func(s Section, change func(*Section)) Section {
		change(&s)
		return s
	}
	for _, c := range []struct {
		name   string
		change func(string) string
		want   []Section
	}{
		{"as captured", func(s string) string { return s }, []Section{voiceSection(), videoSection()}},
		{"audio sendonly", inAudio(replace("a=sendrecv", "a=sendonly")), []Section{voiceSection(), videoSection()}},
		{"audio recvonly", inAudio(replace("a=sendrecv", "a=recvonly")), []Section{videoSection()}},
		{"audio inactive", inAudio(replace("a=sendrecv", "a=inactive")), []Section{videoSection()}},
		{"video inactive", replace("a=sendonly", "a=inactive"), []Section{voiceSection()}},
		{"no msid", inAudio(replace("a=msid:voice_sess4x audio\r\n", "", "a=ssrc:156818350 msid:voice_sess4x audio\r\n", "")),
			[]Section{with(voiceSection(), func(s *Section) { s.StreamID, s.TrackID = "", "" }), videoSection()}},
		{"msid without a track", inAudio(replace("a=msid:voice_sess4x audio", "a=msid:voice_sess4x")),
			[]Section{with(voiceSection(), func(s *Section) { s.TrackID = "" }), videoSection()}},
		{"no ssrc", inAudio(func(s string) string {
			var out []string
			for line := range strings.SplitSeq(s, "\r\n") {
				if !strings.HasPrefix(line, "a=ssrc") {
					out = append(out, line)
				}
			}
			return strings.Join(out, "\r\n")
		}), []Section{with(voiceSection(), func(s *Section) { s.SSRCs = nil }), videoSection()}},
		{"other numbers", inAudio(replace("111", "109", "a=extmap:5 ", "a=extmap:9 ", "a=extmap:4 ", "a=extmap:4/sendonly ")),
			[]Section{with(voiceSection(), func(s *Section) {
				s.Codecs = []forward.Codec{{PayloadType: 109, Mime: "audio/opus", Fmtp: opusCodec.Fmtp, ClockRate: 48000}}
				s.Ext.AudioLevel = 9
			}), videoSection()}},
		{"no audio level", inAudio(replace("a=extmap:5 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n", "")),
			[]Section{with(voiceSection(), func(s *Section) { s.Ext.AudioLevel = 0 }), videoSection()}},
		{"too many ssrcs and rids", replace("a=rid:l send\r\n", "a=rid:l send\r\na=rid:m send\r\na=rid:x send\r\na=rid:y send\r\n",
			"a=simulcast:send l;h", "a=simulcast:send l;m;x;y;h",
			"a=ssrc:4104660340 cname:sim\r\n", "a=ssrc:4104660340 cname:sim\r\n"+manySSRCs(40)),
			[]Section{voiceSection(), with(videoSection(), func(s *Section) {
				s.RIDs = []string{"l", "m", "x", "y"}
				s.SSRCs = append([]uint32{4104660340}, counted(maxSSRCs-1)...)
			})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, newEngine(t, nil))
			if got := p.Sections(); got != nil {
				t.Errorf("sections before any description: %v", got)
			}
			if _, err := p.AcceptOffer(c.change(capture(t, "offer-voice-simulcast"))); err != nil {
				t.Fatal(err)
			}
			got := p.Sections()
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("\ngot  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func counted(n int) []uint32 {
	var out []uint32
	for i := range n {
		out = append(out, uint32(i+1))
	}
	return out
}

func manySSRCs(n int) string {
	var b strings.Builder
	for _, ssrc := range counted(n) {
		fmt.Fprintf(&b, "a=ssrc:%d cname:sim\r\n", ssrc)
	}
	return b.String()
}

// TestSectionsFollowDescriptions: sections come and go with the descriptions in force, and one
// that we made to send on counts if the endpoint says that it sends there, too.
func TestSectionsFollowDescriptions(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	if got := p.Sections(); len(got) != 0 {
		t.Errorf("sections of a data channel: %+v", got)
	}

	section, err := p.AddTrack(local("voice_x_12345678", "x"))
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, p, client)
	if got := p.Sections(); len(got) != 0 {
		t.Errorf("sections of an endpoint that only receives: %+v", got)
	}
	if section.Mid() != "1" {
		t.Errorf("our section is %q, want 1", section.Mid())
	}

	// The endpoint adds a microphone, to our section (which is sendrecv) or to another.
	track := local("audio", "voice_me")
	if _, err := client.AddTrack(track); err != nil {
		t.Fatal(err)
	}
	clientOffers(t, p, client)
	got := p.Sections()
	if len(got) != 1 || got[0].StreamID != "voice_me" || !got[0].Audio || len(got[0].SSRCs) == 0 || len(got[0].Codecs) != 1 {
		t.Fatalf("sections %+v, want one of voice_me", got)
	}
	mid := got[0].MID

	// Our own offer leaves it as it is.
	if _, err := p.AddTrack(local("voice_y_12345678", "y")); err != nil {
		t.Fatal(err)
	}
	exchange(t, p, client)
	if got := p.Sections(); len(got) != 1 || got[0].MID != mid {
		t.Errorf("sections after an offer of ours: %+v, want the one with mid %s", got, mid)
	}

	for _, s := range client.GetSenders() {
		if s.Track() != nil {
			if err := client.RemoveTrack(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	clientOffers(t, p, client)
	if got := p.Sections(); len(got) != 0 {
		t.Errorf("sections after the microphone has gone: %+v", got)
	}
}

func local(id, stream string) webrtc.TrackLocal {
	t, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
	}, id, stream)
	if err != nil {
		panic(err)
	}
	return t
}

// exchange carries an offer of ours to the client and its answer back.
func exchange(t *testing.T, p *Peer, client *webrtc.PeerConnection) string {
	t.Helper()
	offer, err := p.MakeOffer()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		t.Fatal(err)
	}
	answer, err := client.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetLocalDescription(answer); err != nil {
		t.Fatal(err)
	}
	if err := p.ApplyAnswer(answer.SDP); err != nil {
		t.Fatalf("apply answer: %v", err)
	}
	return offer
}

func clientOffers(t *testing.T, p *Peer, client *webrtc.PeerConnection) {
	t.Helper()
	offer, err := client.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	answer, err := p.AcceptOffer(offer.SDP)
	if err != nil {
		t.Fatalf("accept offer: %v", err)
	}
	if err := client.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
}

// TestSectionsAreUsedAgain (S13): a section whose track has gone carries the next one, but only
// when the endpoint knows that the first has gone.
func TestSectionsAreUsedAgain(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	count := func() int { return len(p.GetTransceivers()) }

	first, err := p.AddTrack(local("voice_a_12345678", "a"))
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, p, client)
	if err := p.RemoveTrack(first); err != nil {
		t.Fatal(err)
	}
	second, err := p.AddTrack(local("voice_b_12345678", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if second == first {
		t.Error("a section was used again before the endpoint knew that it was free")
	}
	if offer := exchange(t, p, client); strings.Contains(offer, "voice_a_") || !strings.Contains(offer, "a=msid:b voice_b_12345678") {
		t.Errorf("offer does not follow the tracks:\n%s", offer)
	}
	third, err := p.AddTrack(local("voice_c_12345678", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if third != first {
		t.Error("the free section was not used")
	}
	if offer := exchange(t, p, client); !strings.Contains(offer, "a=msid:c voice_c_12345678") {
		t.Errorf("offer lacks the third track:\n%s", offer)
	}
	if got := count(); got != 2 {
		t.Errorf("%d sections for two tracks at a time", got)
	}
	ids := make([]string, 0, 2)
	for _, r := range client.GetReceivers() {
		if track := r.Track(); track != nil {
			ids = append(ids, track.ID())
		}
	}
	if !slices.Contains(ids, "voice_c_12345678") {
		t.Errorf("the endpoint receives %v, want voice_c_12345678 among them", ids)
	}
}

// TestAnswerMismatch: an answer that does not belong to our offer changes nothing, and the next
// offer works.
func TestAnswerMismatch(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	if err := p.ApplyAnswer(capture(t, "answer-voice")); err == nil {
		t.Error("an answer was taken that nobody asked for")
	}
	if _, err := p.AddTrack(local("voice_a_12345678", "a")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		capture(t, "answer-voice-screen"),
		"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
		"not sdp", "",
		strings.Replace(capture(t, "answer-voice"), "a=mid:1", "a=mid:7", 1),
		strings.Replace(capture(t, "answer-voice"), "m=audio", "m=video", 1),
	} {
		if _, err := p.MakeOffer(); err != nil {
			t.Fatal(err)
		}
		if err := p.ApplyAnswer(bad); err == nil {
			t.Errorf("answer was taken:\n%s", bad)
		}
		if s := p.SignalingState(); s != webrtc.SignalingStateStable {
			t.Fatalf("state %v after a bad answer, want stable", s)
		}
	}
	if offer := exchange(t, p, client); !strings.Contains(offer, "voice_a_12345678") {
		t.Errorf("offer lacks the track:\n%s", offer)
	}
}

// TestRecover: after an offer that does not apply the peer takes the next.
func TestRecover(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	good, err := client.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"not sdp",
		strings.Replace(good.SDP, "a=ice-ufrag:", "a=x-ufrag:", -1),
		strings.Replace(good.SDP, "a=fingerprint:", "a=x-fingerprint:", -1),
		strings.Replace(good.SDP, "a=mid:0", "a=x-mid:0", -1),
		strings.Replace(capture(t, "offer-voice-simulcast"), "a=rtpmap:111 opus/48000/2", "a=rtpmap:111", 1),
	} {
		if _, err := p.AcceptOffer(bad); err != nil {
			if err := p.Recover(); err != nil {
				t.Fatalf("recover: %v", err)
			}
		}
		if s := p.SignalingState(); s != webrtc.SignalingStateStable {
			t.Fatalf("state %v, want stable", s)
		}
	}
	if _, err := client.AddTrack(local("audio", "voice_me")); err != nil {
		t.Fatal(err)
	}
	clientOffers(t, p, client)
	if got := p.Sections(); len(got) != 1 || got[0].StreamID != "voice_me" {
		t.Errorf("sections %+v, want one of voice_me", got)
	}
}

// TestRIDs: the order of layers is that of a=simulcast.
func TestRIDs(t *testing.T) {
	const lines = "a=rid:l send\r\na=rid:h send\r\na=simulcast:send l;h\r\n"
	const three = "a=rid:l send\r\na=rid:m send\r\na=rid:h send pt=96\r\na=rid:r recv\r\n"
	for _, c := range []struct {
		lines string
		want  []string
	}{
		{"a=rid:h send\r\na=rid:l send\r\n", []string{"h", "l"}},
		{three + "a=simulcast:send h;m;l\r\n", []string{"h", "m", "l"}},
		{three + "a=simulcast:send ~h;~m;l\r\n", []string{"h", "m", "l"}},
		{three + "a=simulcast:send h,m;l\r\n", []string{"h", "m", "l"}},
		{three + "a=simulcast:recv r send m;l\r\n", []string{"m", "l"}},
		{three + "a=simulcast:send l;l;x;;m\r\n", []string{"l", "m"}},
		{three + "a=simulcast:recv r\r\n", []string{"l", "m", "h"}},
		{three + "a=simulcast:send\r\n", []string{"l", "m", "h"}},
	} {
		p := newPeer(t, newEngine(t, nil))
		if _, err := p.AcceptOffer(strings.Replace(capture(t, "offer-voice-simulcast"), lines, c.lines, 1)); err != nil {
			t.Fatalf("%q: %v", c.lines, err)
		}
		if got := p.Sections()[1].RIDs; !slices.Equal(got, c.want) {
			t.Errorf("RIDs %q of %q, want %q", got, c.lines, c.want)
		}
	}
}

// TestRepairs: which stream repairs which is told by groups of SSRCs, within bounds.
func TestRepairs(t *testing.T) {
	const group = "a=ssrc-group:FID 4104660340 3673522628\r\n"
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "a=ssrc-group:FID %d %d\r\n", 1000+i, 2000+i)
	}
	for _, c := range []struct {
		lines string
		want  int
	}{
		{group, 2},
		{"a=ssrc-group:SIM 4104660340 3673522628\r\n", 1},
		{"a=ssrc-group:FID 4104660340\r\n", 1},
		{"a=ssrc-group:FID 4104660340 3673522628 5\r\n", 1},
		{"a=ssrc-group:FID 4104660340 x\r\n", 1},
		{"a=ssrc-group:FID 4104660340 4104660340\r\n", 1},
		{"a=ssrc-group:FID 4104660340 99999999999\r\n", 1},
		{"a=ssrc-group:FID 1219626867 3895314775\r\n", 1},
		{many.String(), maxSSRCs},
	} {
		p := newPeer(t, newEngine(t, nil))
		if _, err := p.AcceptOffer(strings.Replace(capture(t, "offer-voice-simulcast"), group, c.lines, 1)); err != nil {
			t.Fatalf("%q: %v", c.lines, err)
		}
		if got := p.Sections()[1].Repairs; len(got) != c.want {
			t.Errorf("%d repair streams of %q, want %d", len(got), c.lines, c.want)
		}
	}
}
