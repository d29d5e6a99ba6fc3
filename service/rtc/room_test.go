package rtc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/sdp/v3"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// room is a call on a virtual network, in the time of a bubble.
type room struct {
	t       *testing.T
	ctx     context.Context
	net     *rtctest.Network
	backend *rtctest.Backend
	log     *logged
	guests  []*guest
}

// inRoom runs f with an empty call, and ends it.
func inRoom(t *testing.T, change func(*rtc.Config), f func(*room)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &room{t: t, ctx: deadline(t, 5*time.Minute), net: rtctest.NewNetwork(t), log: &logged{}}
		serve := r.net.Serve(t)
		r.backend = rtctest.NewBackend(t, func(c *rtc.Config) {
			serve(c)
			c.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if change != nil {
				change(c)
			}
		})
		f(r)
		for _, g := range r.guests {
			if err := g.Err(); err != nil {
				t.Errorf("%s: %v", g.name, err)
			}
			g.checkReceived()
		}
	})
}

// guest is an end user in a room.
type guest struct {
	*rtctest.Endpoint
	room *room
	name string
	link *rtctest.Link

	mu       sync.Mutex
	received map[wireStream]int // packets, guarded by mu
}

// wireStream is what RTP packets of one stream and codec have in common.
type wireStream struct {
	ssrc        uint32
	payloadType uint8
}

// enter makes somebody join and connect. AV1 is what the join says of it.
func (r *room) enter(name string, av1 bool, cfg rtctest.EndpointConfig) *guest {
	r.t.Helper()
	return r.enterAs(wire.Join{UserID: "user-" + name, SessionID: name, AV1Support: &av1}, rtc.Grant{}, cfg)
}

// enterAs is enter with a join and a grant.
func (r *room) enterAs(j wire.Join, grant rtc.Grant, cfg rtctest.EndpointConfig) *guest {
	r.t.Helper()
	name := j.SessionID
	j.CallID, j.DCSignaling = "call", &cfg.ChannelSignalling
	g := &guest{room: r, name: name, received: make(map[wireStream]int)}
	cfg.Net, _, g.link = r.net.ImpairedHost(r.t)
	g.link.Down.Tap(g.tap)
	g.Endpoint = r.backend.JoinAs(r.t, "g", j, grant, cfg)
	// The links are cut first of all: see conversation.part.
	r.t.Cleanup(func() { g.link.Set(rtctest.Impairment{Loss: 1}) })
	if err := g.Connect(r.ctx); err != nil {
		r.t.Fatalf("%s: connect: %v", name, err)
	}
	r.guests = append(r.guests, g)
	return g
}

// leaves ends the guest's session. The link is cut first: see conversation.part.
func (g *guest) leaves() {
	g.link.Set(rtctest.Impairment{Loss: 1})
	g.room.backend.Server.Leave("g", g.name)
}

// wait lets time pass.
func (r *room) wait(d time.Duration) {
	r.t.Helper()
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
		r.t.Fatal(r.ctx.Err())
	}
}

// tap counts RTP packets as they come on the wire.
func (g *guest) tap(b []byte) {
	if len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] < 224 { // RFC 7983, RFC 5761 section 4
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.received[wireStream{ssrc: binary.BigEndian.Uint32(b[8:]), payloadType: b[1] & 0x7f}]++
}

// forget makes codecs and streams those that come from now on.
func (g *guest) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.received)
}

func (g *guest) streams() map[wireStream]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.received)
}

// takes returns what the guest has described: kind and codec by payload type.
func (g *guest) takes() map[uint8]string {
	out := make(map[uint8]string)
	local := g.PC().CurrentLocalDescription()
	var d sdp.SessionDescription
	if err := d.UnmarshalString(local.SDP); err != nil {
		g.room.t.Fatalf("%s: local description: %v", g.name, err)
	}
	for _, m := range d.MediaDescriptions {
		for _, a := range m.Attributes {
			var pt uint8
			var codec string
			if a.Key != "rtpmap" {
				continue
			}
			if _, err := fmt.Sscanf(a.Value, "%d %s", &pt, &codec); err != nil {
				g.room.t.Fatalf("%s: rtpmap %s: %v", g.name, a.Value, err)
			}
			name, _, _ := strings.Cut(codec, "/")
			out[pt] = m.MediaName.Media + "/" + name
		}
	}
	return out
}

// codecs lists the mime types of what has come since forget, repair streams left out.
func (g *guest) codecs() []string {
	known := g.takes()
	found := make(map[string]bool)
	for s := range g.streams() {
		if mime := known[s.payloadType]; mime != "video/rtx" {
			found[mime] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// checkReceived checks what came on the wire: only streams that were offered, in payload types that
// the guest has agreed to.
func (g *guest) checkReceived() {
	t := g.room.t
	t.Helper()
	known, kinds := g.takes(), g.offered()
	for s, n := range g.streams() {
		kind, ok := kinds[s.ssrc]
		if !ok {
			t.Errorf("%s: %d packets of SSRC %d, which was never offered", g.name, n, s.ssrc)
		}
		if mime := known[s.payloadType]; ok && !strings.HasPrefix(mime, kind+"/") {
			t.Errorf("%s: %d packets of payload type %d (%q) in a stream of %s", g.name, n, s.payloadType, mime, kind)
		}
	}
}

// offered returns the SSRCs that the server has offered the guest so far, and of which kind.
func (g *guest) offered() map[uint32]string {
	out := make(map[uint32]string)
	for _, e := range g.room.backend.Events(g.name) {
		if e.Kind != rtc.Signal || e.Type != wire.SignalSDP {
			continue
		}
		d, err := wire.ParseDescription(e.Data)
		if err != nil {
			g.room.t.Fatalf("%s: description: %v", g.name, err)
		}
		var parsed sdp.SessionDescription
		if err := parsed.UnmarshalString(d.SDP); err != nil {
			g.room.t.Fatalf("%s: description: %v", g.name, err)
		}
		for _, m := range parsed.MediaDescriptions {
			for _, a := range m.Attributes {
				var ssrc uint32
				if a.Key != sdp.AttrKeySSRC {
					continue
				}
				if _, err := fmt.Sscanf(a.Value, "%d", &ssrc); err == nil {
					out[ssrc] = m.MediaName.Media
				}
			}
		}
	}
	return out
}

// small is a camera of little bitrate.
var small = []rtctest.Layer{{Bitrate: 100_000, FPS: 20}}

// shows publishes a camera, or what was announced as a screen.
func (g *guest) shows(c rtctest.CameraConfig) *rtctest.Camera {
	g.room.t.Helper()
	if c.Layers == nil {
		c.Layers = small
	}
	if c.Mime == "" {
		c.Mime = "video/VP8"
	}
	cam, err := g.PublishCamera(g.room.ctx, c)
	if err != nil {
		g.room.t.Fatalf("%s: publish %s as %s: %v", g.name, c.StreamID, c.Mime, err)
	}
	return cam
}

// says sends a message of the backend about the guest.
func (g *guest) says(typ wire.SignalType, format string, args ...any) {
	g.room.t.Helper()
	signal(g.room.t, g.room.backend, g.name, typ, fmt.Sprintf(format, args...))
}

// videoOn announces a camera.
func (g *guest) videoOn(streamID string) {
	g.room.t.Helper()
	g.says(wire.SignalVideoOn, `{"videoStreamID":%q}`, streamID)
}

// screenOn announces a screen.
func (g *guest) screenOn(streamID string) {
	g.room.t.Helper()
	g.says(wire.SignalScreenOn, `{"screenStreamID":%q}`, streamID)
}

// awaits waits until ok holds of what the guest sees of somebody.
func (g *guest) awaits(sender, source, what string, ok func(rtctest.View) bool) rtctest.View {
	g.room.t.Helper()
	ctx, cancel := context.WithTimeout(g.room.ctx, 20*time.Second)
	defer cancel()
	if err := g.AwaitView(ctx, sender, source, ok); err != nil {
		g.room.t.Fatalf("%s does not see %s: %v, media map %v", g.name, what, err, g.MediaMap())
	}
	return g.Viewed(sender, source)
}

// sees waits for pictures of somebody in a codec, which come without faults.
func (g *guest) sees(sender, source, mime string) rtctest.View {
	g.room.t.Helper()
	before := g.Viewed(sender, source)
	v := g.awaits(sender, source, mime, func(v rtctest.View) bool {
		if v.Tracks != before.Tracks { // another one
			before = rtctest.View{Tracks: v.Tracks}
		}
		return strings.EqualFold(v.Codec, mime) && v.Pictures > before.Pictures+10
	})
	g.sound(v)
	return v
}

// sound checks that a view has no faults.
func (g *guest) sound(v rtctest.View) {
	g.room.t.Helper()
	if v.Bad+v.Foreign+v.Jumps+v.SwitchFaults+v.Duplicates+v.Missing+
		v.TimestampFaults+v.PictureFaults+v.LevelFaults+v.DependencyFaults > 0 {
		g.room.t.Errorf("%s: faults in what is seen: %+v", g.name, v)
	}
}

// told waits until the guest is told that it is not sent a video because of its codec.
func (g *guest) told(source, sender, mime string) {
	g.room.t.Helper()
	ctx, cancel := context.WithTimeout(g.room.ctx, 10*time.Second)
	defer cancel()
	var id string
	err := g.Await(ctx, func(func(string) rtctest.Heard) bool {
		for key, m := range g.MediaMap() {
			if strings.HasPrefix(key, source+"_"+sender+"_") && m.Type == source && m.SenderID == sender && m.Unsupported == mime {
				id = key
				return true
			}
		}
		return false
	})
	if err != nil {
		g.room.t.Fatalf("%s is not told of the %s of %s in %s: media map %v", g.name, source, sender, mime, g.MediaMap())
	}
	if !g.room.log.has("level=WARN", "trackID="+id, "codec="+mime, "sessionID="+g.name) {
		g.room.t.Errorf("no warning that %s does not take %s", g.name, mime)
	}
}

// logged keeps what is logged. It is safe for concurrent use.
type logged struct {
	mu    sync.Mutex
	lines bytes.Buffer // guarded by mu
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(b)
}

// has reports whether a line has all the parts.
func (l *logged) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.lines.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return true
		}
	}
	return false
}

// hasMicrophone publishes a voice of which nothing comes.
func (g *guest) hasMicrophone() {
	g.room.t.Helper()
	if _, err := g.AddAudio(g.room.ctx, "mic_"+g.name); err != nil {
		g.room.t.Fatalf("%s: publish a voice: %v", g.name, err)
	}
}

// asksKeyframe sends a PLI.
func (g *guest) asksKeyframe(ssrc uint32) {
	g.room.t.Helper()
	if err := g.PC().WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}}); err != nil {
		g.room.t.Fatalf("%s: ask for a keyframe: %v", g.name, err)
	}
}
