package media

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
)

const (
	videoClock = 90_000
	// packetBody is the most that a packet carries before its stamp, in bytes.
	packetBody = 1100
	// keyframeFactor is how much larger a keyframe is than other pictures.
	keyframeFactor = 3
	// keyframeEvery is the least time between two keyframes that were asked for.
	keyframeEvery = 300 * time.Millisecond
	// identified is how many packets of each layer say which one they are of, in extensions.
	identified = 100
)

// VideoConfig describes one layer of a camera or screen.
type VideoConfig struct {
	Layer   int
	Bitrate int // bit/s
	FPS     int

	MID, RID     string // of the section, of the layer
	MIDID, RIDID uint8  // of the extensions; 0: do not say
}

// Video is a Task that sends a layer of a camera or screen: pictures of VP8 that refer each to the
// one before.
type Video struct {
	source *Source
	ledger *Ledger
	to     Writer
	cfg    VideoConfig
	period time.Duration

	asked   atomic.Bool // for a keyframe
	stopped atomic.Bool

	// The pacer's.
	number    uint32
	sequence  uint16
	timestamp uint32
	pictureID uint16
	frame     uint32 // of the next picture
	lastKey   time.Duration
	current   picture
	payload   []byte
	packet    rtp.Packet
}

// picture is what is being sent.
type picture struct {
	at       time.Duration // when it was due
	key      bool
	packets  int // it has
	sent     int
	body     int // bytes in each packet
	interval time.Duration
}

// NewVideo returns the task of a layer.
func NewVideo(l *Ledger, s *Source, to Writer, cfg VideoConfig) *Video {
	return &Video{
		source: s, ledger: l, to: to, cfg: cfg, period: time.Second / time.Duration(cfg.FPS),
		sequence: uint16(rand.Uint32()), timestamp: rand.Uint32(), pictureID: uint16(rand.Uint32() & 0x7fff),
	}
}

// AskKeyframe makes the next picture a keyframe.
func (v *Video) AskKeyframe() { v.asked.Store(true) }

// Stop ends the sending for good.
func (v *Video) Stop() {
	v.stopped.Store(true)
	v.source.Stop()
}

// Send implements Task: it sends a packet. Those of a picture are spread over half the time to the
// next one.
func (v *Video) Send(due, now time.Duration) (time.Duration, bool) {
	if v.stopped.Load() {
		return 0, false
	}
	if v.current.sent == v.current.packets {
		if now-due > tooLate {
			v.ledger.Totals.Skipped.Add(1)
			v.advance()
			return due + v.period, true
		}
		v.begin(due)
	}
	c := &v.current
	v.write(c)
	if c.sent++; c.sent == c.packets {
		v.frame++
		v.advance()
		return c.at + v.period, true
	}
	return c.at + time.Duration(c.sent)*c.interval, true
}

// advance sets the clock to the next picture.
func (v *Video) advance() {
	v.timestamp += uint32(videoClock / v.cfg.FPS)
	v.pictureID = (v.pictureID + 1) & 0x7fff
}

// begin makes the next picture.
func (v *Video) begin(due time.Duration) {
	key := v.frame == 0
	if v.asked.Load() && due-v.lastKey >= keyframeEvery {
		v.asked.Store(false)
		key = true
	}
	size := v.cfg.Bitrate / 8 / v.cfg.FPS
	if key {
		size *= keyframeFactor
		v.lastKey = due
	}
	const overhead = StampSize + descriptorSize + 10
	n := max((size+packetBody-1)/packetBody, 1)
	v.current = picture{
		at: due, key: key, packets: n, body: max(size/n-overhead, 0), interval: v.period / time.Duration(2*n),
	}
}

// descriptorSize is the length of the payload descriptor (RFC 7741 section 4.2) that write makes.
const descriptorSize = 4

func (v *Video) write(c *picture) {
	b := append(v.payload[:0], 0x80, 0x80, 0x80|byte(v.pictureID>>8), byte(v.pictureID))
	if c.sent == 0 {
		b[0] |= 0x10 // begins a partition
		if c.key {
			b = append(b, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01) // 640 by 360
		} else {
			b = append(b, 0x11, 0, 0)
		}
	}
	at := len(b)
	if need := at + c.body; cap(b) < need+StampSize {
		b = append(make([]byte, 0, need+StampSize), b...)
	}
	b = b[:at+c.body]
	stamp := Stamp{
		Run: v.ledger.Run, Source: v.source.ID, Number: v.number, Frame: v.frame, Packet: uint16(c.sent),
		Packets: uint16(c.packets), Layer: uint8(v.cfg.Layer), Key: c.key, Sent: Now(),
	}
	b = stamp.Append(b, descriptorSize)
	v.payload = b
	v.packet.Header = rtp.Header{
		Version: 2, SequenceNumber: v.sequence, Timestamp: v.timestamp, Marker: c.sent == c.packets-1,
	}
	if v.number < identified {
		if v.cfg.MIDID != 0 {
			_ = v.packet.SetExtension(v.cfg.MIDID, []byte(v.cfg.MID)) // fails for ids that no session negotiates
		}
		if v.cfg.RIDID != 0 && v.cfg.RID != "" {
			_ = v.packet.SetExtension(v.cfg.RIDID, []byte(v.cfg.RID))
		}
	}
	v.packet.Payload = b
	v.sequence++
	v.number++
	v.source.wrote(v.ledger, v.cfg.Layer, len(b), v.to.WriteRTP(&v.packet))
}
