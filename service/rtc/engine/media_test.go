package engine

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// videoOf returns the payload types of a codec and its repair stream as an endpoint registers them.
func videoOf(mime string, pt uint8, fmtp string) []webrtc.RTPCodecParameters {
	all := feedbackVideo
	f := format{pt: pt, name: strings.TrimPrefix(mime, "video/"), clock: 90000, fmtp: fmtp, feedback: all}
	r := rtx(pt+1, pt)
	return []webrtc.RTPCodecParameters{f.parameters(false), r.parameters(false)}
}

// newClientOf returns an endpoint that knows those codecs, in that order, and Opus.
func newClientOf(t *testing.T, video ...[]webrtc.RTPCodecParameters) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	for _, c := range slices.Concat(video...) {
		if err := m.RegisterCodec(c, webrtc.RTPCodecTypeVideo); err != nil {
			t.Fatal(err)
		}
	}
	f := plainFormats(true)[0]
	if err := m.RegisterCodec(f.parameters(true), webrtc.RTPCodecTypeAudio); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	api := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(m))
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	if _, err := pc.CreateDataChannel("calls-dc", nil); err != nil {
		t.Fatal(err)
	}
	return pc
}

// picture adds a section for video in which nothing is sent, in those codecs only if there are any.
func picture(t *testing.T, pc *webrtc.PeerConnection, codecs ...[]webrtc.RTPCodecParameters) {
	t.Helper()
	section, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo,
		webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
	if err != nil {
		t.Fatal(err)
	}
	if len(codecs) > 0 {
		if err := section.SetCodecPreferences(slices.Concat(codecs...)); err != nil {
			t.Fatal(err)
		}
	}
}

func localVideo(t *testing.T, id, mime, fmtp string) webrtc.TrackLocal {
	t.Helper()
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{
		MimeType: mime, ClockRate: 90000, SDPFmtpLine: fmtp,
	}, id, "s")
	if err != nil {
		t.Fatal(err)
	}
	return track
}

// codecNames returns the codecs in the sections of a kind, in order, without repair streams.
func codecNames(t *testing.T, text, kind string) []string {
	t.Helper()
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range d.MediaDescriptions {
		if m.MediaName.Media != kind {
			continue
		}
		var in []string
		for _, f := range formats(m) {
			if f.name != nameRTX {
				in = append(in, f.name)
			}
		}
		out = append(out, strings.Join(in, " "))
	}
	return out
}

// TestAnswerOrder: what is first in an answer is what browsers send, so it is what we prefer, in
// whichever order it was offered.
func TestAnswerOrder(t *testing.T) {
	vp8 := videoOf("video/VP8", 100, "")
	vp9 := videoOf("video/VP9", 98, "profile-id=0")
	avc := videoOf("video/H264", 96, h264("42e01f"))
	for _, c := range []struct {
		name   string
		prefer []string
		offer  [][]webrtc.RTPCodecParameters
		want   string
	}{
		{"ours by default", nil, [][]webrtc.RTPCodecParameters{avc, vp9, vp8}, "VP8 VP9 H264"},
		{"ours as configured", []string{"h264", "VP8", "AV1", "VP9"}, [][]webrtc.RTPCodecParameters{vp9, vp8, avc}, "H264 VP8 VP9"},
		{"not all", []string{"VP8", "AV1"}, [][]webrtc.RTPCodecParameters{avc, vp9, vp8}, "VP8"},
		{"one", nil, [][]webrtc.RTPCodecParameters{avc}, "H264"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, newEngine(t, func(cfg *Config) { cfg.VideoCodecs = c.prefer }))
			client := newClientOf(t, c.offer...)
			picture(t, client)
			connect(deadline(t, 20*time.Second), t, p, client)
			answer := client.CurrentRemoteDescription().SDP
			if got := codecNames(t, answer, "video"); !slices.Equal(got, []string{c.want}) {
				t.Errorf("answer has %q, want %q:\n%s", got, c.want, answer)
			}
			// The endpoint's numbers, each with its repair stream.
			for _, f := range slices.Concat(c.offer...) {
				line := fmt.Sprintf("a=rtpmap:%d %s/90000\r\n", f.PayloadType, strings.TrimPrefix(f.MimeType, "video/"))
				if got := strings.Contains(answer, line); got != (c.name != "not all" || f.PayloadType >= 100) {
					t.Errorf("answer has %q: %v", line, got)
				}
			}
		})
	}
	for _, bad := range [][]string{{"VP8", "VP8"}, {"H265"}, {}} {
		if _, err := newMedia(bad); err == nil {
			t.Errorf("video codecs %q were taken", bad)
		}
	}
}

// TestSectionsOfOneCodec: a section has the codecs it was offered with, whatever those before it
// had, and our offers have all.
func TestSectionsOfOneCodec(t *testing.T) {
	head, video, _ := strings.Cut(capture(t, "offer-voice-simulcast"), "m=video")
	head = strings.ReplaceAll(head, "BUNDLE 0 1 2", "BUNDLE 0 1 2 3 4")
	_, lines, _ := strings.Cut(video, "\r\n")
	section := func(mid, formats string) string {
		return "m=video 9 UDP/TLS/RTP/SAVPF " + formats + "\r\n" + strings.ReplaceAll(lines, "a=mid:2", "a=mid:"+mid)
	}
	avc, vp8, av1 := section("2", "106 107"), section("3", "96 97"), section("4", "45 46")
	p := newPeer(t, newEngine(t, nil))
	for i, c := range []struct {
		offer string
		want  []string
	}{
		{head + avc, []string{"H264"}},
		{head + avc + vp8, []string{"H264", "VP8"}},
		{head + avc + vp8 + av1, []string{"H264", "VP8", "AV1"}},
	} {
		answer, err := p.AcceptOffer(c.offer)
		if err != nil {
			t.Fatal(err)
		}
		if got := codecNames(t, answer, "video"); !slices.Equal(got, c.want) {
			t.Errorf("answer %d has %q, want %q", i, got, c.want)
		}
		if got := p.Sections(); len(got) != 2+i || len(got[1+i].Codecs) != 2 {
			t.Errorf("sections %+v, want the last with a codec and its repair stream", got)
		}
	}
	if _, err := p.AddTrack(localVideo(t, "video_a_12345678", "video/VP8", "")); err != nil {
		t.Fatal(err)
	}
	offer, err := p.MakeOffer()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"H264", "VP8", "AV1", "VP8 AV1 VP9 H264 H264 H264"}
	if got := codecNames(t, offer, "video"); !slices.Equal(got, want) {
		t.Errorf("offer has %q, want %q", got, want)
	}
}

// TestFreshOffer: what clients were always offered is there, and nothing that they have to ask for.
func TestFreshOffer(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	if _, err := p.AddTrack(local("voice_a_12345678", "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.AddTrack(localVideo(t, "video_a_12345678", "video/VP8", "")); err != nil {
		t.Fatal(err)
	}
	offer := exchange(t, p, client)
	want := []string{
		"m=audio 9 UDP/TLS/RTP/SAVPF 111",
		"a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1", "a=rtcp-fb:111 transport-cc",
		"m=video 9 UDP/TLS/RTP/SAVPF 96 97 45 46 98 99 106 107 112 113 114 115",
		"a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96", "a=rtpmap:45 AV1/90000",
		"a=extmap-allow-mixed", "a=ssrc-group:FID ",
	}
	for _, pt := range []string{"96", "45", "98", "106", "112", "114"} {
		for _, name := range feedbackNames {
			want = append(want, "a=rtcp-fb:"+pt+" "+name)
		}
	}
	for _, x := range extensions {
		want = append(want, fmt.Sprintf("a=extmap:%d %s", x.id, x.uri))
	}
	for _, line := range want {
		if !strings.Contains(offer, "\r\n"+line) {
			t.Errorf("offer lacks %q:\n%s", line, offer)
		}
	}
	for _, line := range []string{"a=fmtp:96", "a=fmtp:45", " red/", "a=rtcp-fb:111 nack"} {
		if strings.Contains(offer, line) {
			t.Errorf("offer has %q:\n%s", line, offer)
		}
	}
}

// offered has the peer answer the captured offer with changes to its audio section.
func offered(t *testing.T, p *Peer, pairs ...string) (answer string) {
	t.Helper()
	head, rest, _ := strings.Cut(capture(t, "offer-voice-simulcast"), "m=audio")
	audio, video, _ := strings.Cut(rest, "m=video")
	audio = strings.NewReplacer(pairs...).Replace(audio)
	answer, err := p.AcceptOffer(head + "m=audio" + audio + "m=video" + video)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestRedundantAudio: RED is for endpoints that have it, where they have it.
func TestRedundantAudio(t *testing.T) {
	const lines = "a=rtpmap:111 opus/48000/2\r\na=rtpmap:64 red/48000/2\r\n"
	for _, c := range []struct {
		name, formats, fmtp string
		answer, offer       string // codecs
	}{
		{"after opus", "111 64 9", "a=fmtp:64 111/111\r\n", "111 64", "111 64"},
		{"before opus", "64 111", "a=fmtp:64 111/111\r\n", "64 111", "64 111"},
		{"without parameters", "111 64", "", "111 64", "111 64"},
		{"three generations", "111 64", "a=fmtp:64 111/111/111\r\n", "111 64", "111 64"},
		{"of something else", "111 64 9", "a=fmtp:64 9/9\r\n", "111", "111"},
		{"of more than opus", "111 64 9", "a=fmtp:64 111/9\r\n", "111", "111"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, newEngine(t, nil))
			answer := offered(t, p, " 111 9 0 8", " "+c.formats, "a=rtpmap:111 opus/48000/2\r\n", lines+c.fmtp)
			if !strings.Contains(answer, "m=audio 9 UDP/TLS/RTP/SAVPF "+c.answer+"\r\n") {
				t.Errorf("want %q in the answer:\n%s", c.answer, answer)
			}
			if got, want := strings.Contains(answer, "a=fmtp:64 111/111\r\n"), strings.Contains(c.answer, "64"); got != want {
				t.Errorf("parameters of RED: %v, want %v:\n%s", got, want, answer)
			}
			if _, err := p.AddTrack(local("voice_a_12345678", "a")); err != nil {
				t.Fatal(err)
			}
			offer, err := p.MakeOffer()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(offer, "m=audio 9 UDP/TLS/RTP/SAVPF "+c.offer+"\r\n"); got != 2 {
				t.Errorf("%q is %d times in the offer, want 2:\n%s", c.offer, got, offer)
			}
		})
	}
}

// TestAudioNACK: audio is repaired where the endpoint says that it can, whoever offered first.
func TestAudioNACK(t *testing.T) {
	const nack = "a=rtcp-fb:111 nack\r\n"
	p := newPeer(t, newEngine(t, nil))
	if answer := offered(t, p); strings.Contains(answer, nack) || p.Sections()[0].NACK {
		t.Errorf("nobody has asked for this:\n%s", answer)
	}
	if answer := offered(t, p, "a=rtcp-fb:111 transport-cc\r\n", "a=rtcp-fb:111 transport-cc\r\n"+nack); !strings.Contains(answer, nack) || !p.Sections()[0].NACK {
		t.Errorf("want %q:\n%s", nack, answer)
	}
	if _, err := p.AddTrack(local("voice_a_12345678", "a")); err != nil {
		t.Fatal(err)
	}
	offer, err := p.MakeOffer()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(offer, nack); got != 2 {
		t.Errorf("%d of the audio sections of our offer have it, want both:\n%s", got, offer)
	}
}

// TestNumbers: payload types and ids of our offers are those that the connection has agreed on, and
// none that the endpoint uses for something else.
func TestNumbers(t *testing.T) {
	vp8, h265 := videoOf("video/VP8", 98, ""), videoOf("video/H265", 45, "")
	p := newPeer(t, newEngine(t, nil))
	client := newClientOf(t, h265, vp8)
	picture(t, client)
	offer, err := client.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	// In place of what pion offers.
	text := strings.ReplaceAll(offer.SDP, "a=extmap:", "a=x-extmap:")
	text = strings.ReplaceAll(text, "a=rtpmap:98 ", "a=extmap:3 "+ExtMID+"\r\na=extmap:4 urn:other\r\n"+
		"a=extmap:15 "+ExtTWCC+"\r\na=extmap:3 "+ExtRID+"\r\na=rtpmap:98 ")
	answer, err := p.AcceptOffer(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(answer, "a=extmap:"); got != 1 || !strings.Contains(answer, "a=extmap:3 "+ExtMID) {
		t.Errorf("%d extensions in the answer, want that of the MID:\n%s", got, answer)
	}
	if _, err := p.AddTrack(localVideo(t, "video_a_12345678", "video/VP8", "")); err != nil {
		t.Fatal(err)
	}
	ours, err := p.MakeOffer()
	if err != nil {
		t.Fatal(err)
	}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(ours); err != nil {
		t.Fatal(err)
	}
	m := d.MediaDescriptions[len(d.MediaDescriptions)-1]
	seen := map[uint8]string{45: "theirs", 46: "theirs"}
	all := formats(m)
	for _, f := range all {
		if seen[f.pt] != "" || f.pt >= 64 && f.pt < 96 {
			t.Errorf("payload type %d of %s is taken by %q, or by RTCP", f.pt, f.name, seen[f.pt])
		}
		seen[f.pt] = f.name
	}
	if seen[98] != "VP8" || seen[99] != nameRTX || len(all) != 12 {
		t.Errorf("payload types %v, want 12 with VP8 as 98 and 99", seen)
	}
	ids := map[uint8]string{4: "theirs"}
	for _, x := range extIDs(m) {
		if ids[x.id] != "" {
			t.Errorf("id %d of %s is taken by %s", x.id, x.uri, ids[x.id])
		}
		ids[x.id] = x.uri
	}
	if ids[3] != ExtMID || len(ids) != 10 {
		t.Errorf("ids %v, want 9 of ours with the MID as 3", ids)
	}
}

// TestCrowdedNumbers: an endpoint that leaves no number free is offered all the same, each number
// once.
func TestCrowdedNumbers(t *testing.T) {
	e := newEndpoint()
	m := &sdp.MediaDescription{MediaName: sdp.MediaName{Media: "video", Port: sdp.RangedPort{Value: 9}}}
	for pt := range 128 {
		m.MediaName.Formats = append(m.MediaName.Formats, fmt.Sprint(pt))
		m.Attributes = append(m.Attributes, sdp.Attribute{Key: "rtpmap", Value: fmt.Sprintf("%d X/90000", pt)})
	}
	for id := range 15 {
		m.Attributes = append(m.Attributes, sdp.Attribute{Key: "extmap", Value: fmt.Sprintf("%d urn:%d", id, id)})
	}
	e.note(m)
	all, err := newMedia(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		seen := make(map[uint8]bool)
		for _, f := range slices.Concat(all.formats(false, e), all.formats(true, e)) {
			if seen[f.pt] || f.pt < 35 || f.pt >= 64 && f.pt < 96 {
				t.Errorf("payload type %d of %s", f.pt, f.name)
			}
			seen[f.pt] = true
		}
		if got := offerExtensions(false, e); len(got) != 0 {
			t.Errorf("extensions %v where no id is free", got)
		}
	}
}

// TestRejected: a section without a codec of ours, or that the endpoint has given up, is not used
// and in nobody's way.
func TestRejected(t *testing.T) {
	vp8, h265 := videoOf("video/VP8", 96, ""), videoOf("video/H265", 45, "")
	for name, zero := range map[string]bool{"no codec": false, "no port": true} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, newEngine(t, nil))
			client := newClientOf(t, h265, vp8)
			connect(deadline(t, 20*time.Second), t, p, client)
			picture(t, client, h265)
			picture(t, client, vp8)
			offer, err := client.CreateOffer(nil)
			if err != nil {
				t.Fatal(err)
			}
			text := offer.SDP
			if zero {
				text = strings.Replace(text, "m=video 9", "m=video 0", 1)
			}
			answer, err := p.AcceptOffer(text)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(answer, "m=video 0 UDP/TLS/RTP/SAVPF 45\r\n") || !strings.Contains(answer, "a=group:BUNDLE 0 2\r\n") ||
				strings.Count(answer, "m=video 9 ") != 1 {
				t.Errorf("want the first video rejected:\n%s", answer)
			}
			if got := p.agreed.byMID; len(got) != 1 || got["2"] == nil {
				t.Errorf("agreed on %v, want section 2", got)
			}
			if _, err := p.AddTrack(localVideo(t, "video_a_12345678", "video/VP8", "")); err != nil {
				t.Fatal(err)
			}
			ours, err := p.MakeOffer()
			if err != nil {
				t.Fatal(err)
			}
			if got := codecNames(t, ours, "video"); len(got) != 3 || got[1] != "VP8" {
				t.Errorf("offer has %q", got)
			}
		})
	}
	// Sections that share the port of another have none of their own.
	p := newPeer(t, newEngine(t, nil))
	if answer := offered(t, p, " 9 UDP", " 0 UDP", "a=mid:1", "a=mid:1\r\na=bundle-only"); !strings.Contains(answer, "m=audio 9") || len(p.Sections()) != 2 {
		t.Errorf("sections %+v after a bundle-only one:\n%s", p.Sections(), answer)
	}
}
