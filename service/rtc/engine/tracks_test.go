package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/forward"
)

// boundTrack is a track that keeps what it is bound to.
type boundTrack struct {
	webrtc.TrackLocal
	to []webrtc.TrackLocalContext
}

func (b *boundTrack) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	b.to = append(b.to, c)
	return b.TrackLocal.Bind(c)
}

// TestBindToSection: a track is told what its own section agreed on, not what others did.
func TestBindToSection(t *testing.T) {
	vp8, vp9 := videoOf("video/VP8", 100, ""), videoOf("video/VP9", 102, "profile-id=0")
	for _, c := range []struct {
		name   string
		answer [][]webrtc.RTPCodecParameters // codecs of the endpoint
		track  string
		want   bool
	}{
		{"taken", [][]webrtc.RTPCodecParameters{vp8, vp9}, "video/VP9", true},
		{"not taken", [][]webrtc.RTPCodecParameters{vp8}, "video/VP9", false},
		{"without repair", [][]webrtc.RTPCodecParameters{vp8[:1]}, "video/VP8", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, newEngine(t, nil))
			client := newClientOf(t, c.answer...)
			connect(deadline(t, 20*time.Second), t, p, client)
			b := &boundTrack{TrackLocal: localVideo(t, "video_a_12345678", c.track, "")}
			if _, err := p.AddTrack(b); err != nil {
				t.Fatal(err)
			}
			exchange(t, p, client)
			if len(b.to) != 1 {
				t.Fatalf("bound %d times, want once", len(b.to))
			}
			config, params, ok := SubscriptionConfig(b.to[0], c.track, "")
			if ok != c.want {
				t.Fatalf("taken: %v, want %v, of %+v", ok, c.want, b.to[0].CodecParameters())
			}
			offer, err := p.MakeOffer()
			if err != nil {
				t.Fatal(err)
			}
			repairs := len(c.answer[0]) > 1
			if got := strings.Contains(offer, "a=ssrc-group:FID "); got != repairs {
				t.Errorf("SSRC of a repair stream in the next offer: %v, want %v", got, repairs)
			}
			if !ok {
				return
			}
			if params.MimeType != c.track || config.SSRC == 0 || config.PayloadType != uint8(params.PayloadType) {
				t.Errorf("sent as %+v, %+v", config, params)
			}
			if got := config.Repair != 0 && config.RepairPayloadType != 0; got != repairs {
				t.Errorf("repair stream of %+v, want one: %v", config, repairs)
			}
			if config.Ext.TWCC == 0 || config.Ext.MID == 0 {
				t.Errorf("extensions %+v, want those of pion's endpoints", config.Ext)
			}
		})
	}
}

// TestTrackOfRejectedSection: an endpoint that does not want a track is sent nothing, and its answer
// stands.
func TestTrackOfRejectedSection(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	client := newClient(t, nil)
	connect(deadline(t, 20*time.Second), t, p, client)
	b := &boundTrack{TrackLocal: local("voice_a_12345678", "a")}
	if _, err := p.AddTrack(b); err != nil {
		t.Fatal(err)
	}
	if _, err := p.MakeOffer(); err != nil {
		t.Fatal(err)
	}
	answer := strings.Replace(capture(t, "answer-voice"), "m=audio 9", "m=audio 0", 1)
	if err := p.ApplyAnswer(answer); err != nil {
		t.Fatal(err)
	}
	if len(b.to) != 1 {
		t.Fatalf("bound %d times, want once", len(b.to))
	}
	if config, _, ok := SubscriptionConfig(b.to[0], "audio/opus", ""); ok {
		t.Errorf("sent as %+v", config)
	}
	if _, err := p.MakeOffer(); err != nil {
		t.Errorf("next offer: %v", err)
	}
}

// fakeContext is a context of pion.
type fakeContext struct {
	webrtc.TrackLocalContext
	ssrc, repair webrtc.SSRC
}

func (c fakeContext) SSRC() webrtc.SSRC               { return c.ssrc }
func (c fakeContext) SSRCRetransmission() webrtc.SSRC { return c.repair }

func bindingOf(audio bool, codecs []format, ids []extID) webrtc.TrackLocalContext {
	b := binding{TrackLocalContext: fakeContext{ssrc: 7, repair: 8}}
	for _, f := range codecs {
		b.codecs = append(b.codecs, f.parameters(audio))
	}
	for _, x := range ids {
		b.extensions = append(b.extensions, webrtc.RTPHeaderExtensionParameter{URI: x.uri, ID: int(x.id)})
	}
	return b
}

func TestSubscriptionConfig(t *testing.T) {
	video := []format{
		rtx(97, 96), {pt: 96, name: "vp8", clock: 90000},
		{pt: 102, name: "H264", clock: 90000, fmtp: h264("640028")}, rtx(103, 102),
		{pt: 104, name: "H264", clock: 90000, fmtp: "profile-level-id=42e01f"}, // mode 0
		{pt: 106, name: "H264", clock: 90000, fmtp: h264("42E034")},
		{pt: 100, name: "VP9", clock: 90000, fmtp: "profile-id=2"},
		{pt: 98, name: "VP9", clock: 90000, fmtp: "profile-id=0"}, rtx(99, 100),
	}
	audio := []format{
		{pt: 111, name: "opus", clock: 48000, channels: "2", feedback: feedbackTWCC | feedbackNACK}, red(63, 111),
	}
	plainAudio := []format{{pt: 111, name: "opus", clock: 48000, channels: "2"}, red(63, 9)}
	var all []extID
	for i, x := range extensions {
		all = append(all, extID{x.uri, uint8(i + 1)})
	}
	all = append(all, extID{"urn:other", 14})
	videoExt := forward.Extensions{
		TWCC: 2, MID: 3, RID: 4, RepairRID: 5, SendTime: 6, Capture: 7, Delay: 8, Rotation: 9, Dependency: 10,
	}
	audioExt := forward.Extensions{AudioLevel: 1, TWCC: 2, MID: 3, SendTime: 6, Capture: 7}
	for _, c := range []struct {
		name       string
		codecs     []format
		mime, fmtp string
		want       forward.SubscriptionConfig // zero: not taken
	}{
		{"VP8", video, "video/VP8", "", forward.SubscriptionConfig{SSRC: 7, PayloadType: 96, Repair: 8, RepairPayloadType: 97, Ext: videoExt}},
		{"H264 baseline", video, "video/h264", h264("42e01f"), forward.SubscriptionConfig{SSRC: 7, PayloadType: 106, Ext: videoExt}},
		{"H264 baseline, without parameters", video, "video/H264", "", forward.SubscriptionConfig{SSRC: 7, PayloadType: 106, Ext: videoExt}},
		{"H264 high", video, "video/H264", h264("64001f"), forward.SubscriptionConfig{SSRC: 7, PayloadType: 102, Repair: 8, RepairPayloadType: 103, Ext: videoExt}},
		{"H264 constrained high", video, "video/H264", h264("640c1f"), forward.SubscriptionConfig{SSRC: 7, PayloadType: 102, Repair: 8, RepairPayloadType: 103, Ext: videoExt}},
		{"H264 main", video, "video/H264", h264("4d001f"), forward.SubscriptionConfig{}},
		{"VP9", video, "video/VP9", "profile-id=0", forward.SubscriptionConfig{SSRC: 7, PayloadType: 98, Ext: videoExt}},
		{"AV1", video, "video/AV1", "", forward.SubscriptionConfig{}},
		{"a repair stream", video, "video/rtx", "apt=96", forward.SubscriptionConfig{}},
		{"nothing", nil, "video/VP8", "", forward.SubscriptionConfig{}},
		{"nonsense", video, "VP8", "", forward.SubscriptionConfig{}},
		{"opus", audio, "audio/opus", "minptime=10;useinbandfec=1", forward.SubscriptionConfig{SSRC: 7, PayloadType: 111, RED: 63, NACK: true, Ext: audioExt}},
		{"opus alone", plainAudio, "audio/OPUS", "", forward.SubscriptionConfig{SSRC: 7, PayloadType: 111, Ext: audioExt}},
		{"other audio", audio, "audio/PCMU", "", forward.SubscriptionConfig{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			isAudio := strings.HasPrefix(c.mime, "audio")
			got, params, ok := SubscriptionConfig(bindingOf(isAudio, c.codecs, all), c.mime, c.fmtp)
			if got != c.want || ok != (c.want.SSRC != 0) || uint8(params.PayloadType) != c.want.PayloadType {
				t.Errorf("got %+v, %v, want %+v", got, ok, c.want)
			}
		})
	}
}

// TestTakes: what an endpoint can receive is told by the sections on which it receives.
func TestTakes(t *testing.T) {
	p := newPeer(t, newEngine(t, nil))
	type answer struct{ takes, known bool }
	check := func(when string, want map[string]answer) {
		t.Helper()
		for _, mime := range []string{"audio/opus", "video/VP8", "video/VP9 profile-id=0", "video/H264 " + h264("640c1f"), "video/H265", "audio/PCMU"} {
			mime, fmtp, _ := strings.Cut(mime, " ")
			takes, known := p.Takes(mime, fmtp)
			if got := (answer{takes, known}); got != want[mime] {
				t.Errorf("%s: %s is %+v, want %+v", when, mime, got, want[mime])
			}
		}
	}
	check("at first", nil)
	if _, err := p.AcceptOffer(strings.Replace(capture(t, "offer-voice-simulcast"), "a=sendrecv\r\nm=video", "a=inactive\r\nm=video", 1)); err != nil {
		t.Fatal(err)
	}
	check("of sections that only send", nil)
	offered(t, p)
	no := answer{false, true}
	yes := answer{true, true}
	check("of audio", map[string]answer{"audio/opus": yes, "audio/PCMU": no})
	text := strings.Replace(capture(t, "offer-voice-simulcast"), "a=sendonly", "a=sendrecv", 1)
	if _, err := p.AcceptOffer(text); err != nil {
		t.Fatal(err)
	}
	want := map[string]answer{
		"audio/opus": yes, "audio/PCMU": no, "video/VP8": yes, "video/VP9": yes, "video/H264": yes, "video/H265": no,
	}
	check("of all", want)
	offered(t, p)
	check("of what it said before", want)
}
