package rtctest

import (
	"slices"
	"time"
)

// settled is how long after its arrival a frame is judged: what has not come by then is lost, even
// to those who ask for it again.
const settled = time.Second

// View is what a viewer got of a video so far. Whatever is called a fault must not happen on a
// network without loss, and with loss only where packets are missing for good.
type View struct {
	Source string // name that the camera's packets carry
	Codec  string // mime type
	SSRC   uint32
	Tracks int       // that there were under this name; the last is described
	Since  time.Time // the first packet came

	Packets  int // with payload, duplicates not counted
	Bytes    int // of RTP packets, duplicates and padding too
	Bitrate  int // bit/s over the last second
	Padding  int // packets without payload
	Repaired int // packets that first came in a repair stream (RFC 4588)

	Duplicates int
	Missing    int // sequence numbers that have not come a second later
	Jumps      int // steps of more than 1000 in the sequence numbers
	Bad        int // payloads that are not as they were sent
	Foreign    int // payloads of another source than the first

	// Frames of one spatial layer each, those of the last second not counted.
	Early     int // before the first that was decodable
	Frames    int // of which something came, from that one on
	Complete  int // by now
	Decodable int // by now: complete, as are all that they refer to

	Keyframes int // complete

	TimestampFaults  int           // steps back, or others than between the captures by more than 100 ms
	TimestampError   time.Duration // largest difference between the steps of timestamps and captures
	TimestampDrift   time.Duration // sum of these differences
	PictureFaults    int           // picture ids (VP8, VP9) that are not the last one's successor
	LevelFaults      int           // TL0PICIDX likewise
	DependencyFaults int           // frame numbers of dependency descriptors that do not rise, keyframes without structure
	Described        int           // frames with dependency descriptors

	Layer        int // of the simulcast; -1 before the first frame
	Spatial      int // highest in the last pictures
	Temporal     int // highest in the last pictures
	History      []Shown
	Switches     int // changes of Layer
	SwitchFaults int // that did not begin at a keyframe

	Pictures  int // that could be shown
	FirstShow time.Time
	Freezes   int // gaps between them of more than three mean intervals and 150 ms beyond the mean
	Frozen    time.Duration
	LastShow  time.Time
	Asked     int // keyframes asked for

	// Offset is how far the capture time that the last sender report gives for the newest frame is
	// from the true one. It is the same for all that is in sync.
	Offset      time.Duration
	OffsetKnown bool
}

// Shown is a change of what a viewer gets.
type Shown struct {
	At       time.Time
	Layer    int
	Spatial  int
	Temporal int
	Keyframe bool // the change of the layer begins at one
}

// frame is one of a camera's frames, as far as it came.
type frame struct {
	stamp             // of the first packet that came
	first, last int64 // sequence numbers of its packets that came
	arrived     time.Time
	timestamp   uint32
	got         []bool // by packet
	left        int    // packets that have not come

	described  bool // by a payload descriptor
	pictureID  uint16
	level      uint8
	hasLevel   bool
	mixed      bool // packets say different things
	dependency uint16
	hasDD      bool
	structured bool // its first packet has a template dependency structure

	decodable bool
	counted   bool // among the frames of the view
}

// checks goes through the frames in the order of their sequence numbers. It is copied to look at
// those that are not settled yet.
type checks struct {
	begun bool
	prev  frame
	view  View // what the checks find

	// Highest layers of recent pictures.
	recent  [8]struct{ spatial, temporal int8 }
	picture uint32
	filled  int
}

// frame checks the next frame. adjacent says that no packet between it and the last one is missing.
func (c *checks) frame(f *frame, adjacent bool) {
	v := &c.view
	if f.mixed {
		v.PictureFaults++
	}
	if f.hasDD {
		v.Described++
		if f.keyframe && f.got[0] && !f.structured {
			v.DependencyFaults++
		}
	}
	if !c.begun {
		c.begun = true
		v.Layer, v.Spatial, v.Temporal = -1, -1, -1
	} else {
		c.step(f, adjacent)
	}
	c.layers(f, adjacent)
	c.prev = *f
}

// step checks what counts up from one frame to the next.
func (c *checks) step(f *frame, adjacent bool) {
	v, p := &c.view, &c.prev
	stepped := time.Duration(int32(f.timestamp-p.timestamp)) * time.Second / videoClock
	captured := time.Duration(f.captured-p.captured) * time.Microsecond
	same := f.salt == p.salt && f.layer == p.layer && f.picture == p.picture // another layer of a picture
	wrong := stepped - captured
	if f.salt != p.salt {
		wrong = 0 // another camera in its place
	}
	v.TimestampDrift += wrong
	v.TimestampError = max(v.TimestampError, wrong.Abs())
	if stepped < 0 || stepped == 0 && !same || wrong.Abs() > 100*time.Millisecond {
		v.TimestampFaults++
	}
	if f.described && p.described && adjacent {
		want := p.pictureID
		if !same {
			want = (want + 1) & 0x7fff
		}
		if f.pictureID != want {
			v.PictureFaults++
		}
		if f.hasLevel && p.hasLevel {
			level := p.level
			if !same && f.temporal == 0 {
				level++
			}
			if f.level != level {
				v.LevelFaults++
			}
		}
	}
	if f.hasDD && p.hasDD && int16(f.dependency-p.dependency) <= 0 {
		v.DependencyFaults++
	}
}

// layers notes which layers are being received.
func (c *checks) layers(f *frame, adjacent bool) {
	v := &c.view
	switched := int(f.layer) != v.Layer || f.salt != c.prev.salt
	if switched {
		if v.Layer >= 0 && f.salt == c.prev.salt {
			v.Switches++
			if !f.keyframe && adjacent {
				v.SwitchFaults++
			}
		}
		c.filled = 0
	}
	if c.filled == 0 || f.picture != c.picture {
		copy(c.recent[1:], c.recent[:])
		c.recent[0].spatial, c.recent[0].temporal = int8(f.spatial), int8(f.temporal)
		c.filled = min(c.filled+1, len(c.recent))
		c.picture = f.picture
	}
	c.recent[0].spatial = max(c.recent[0].spatial, int8(f.spatial))
	spatial, temporal := int8(0), int8(0)
	for i, r := range c.recent[:c.filled] {
		if i < 3 {
			spatial = max(spatial, r.spatial)
		}
		temporal = max(temporal, r.temporal)
	}
	if switched || int(spatial) != v.Spatial || int(temporal) != v.Temporal {
		v.Layer, v.Spatial, v.Temporal = int(f.layer), int(spatial), int(temporal)
		v.History = append(v.History[:len(v.History):len(v.History)], Shown{
			At: f.arrived, Layer: v.Layer, Spatial: v.Spatial, Temporal: v.Temporal, Keyframe: f.keyframe,
		})
	}
}

// freezes measures the time between the pictures that can be shown, as the freezeCount of browsers
// does.
type freezes struct {
	last      time.Time
	intervals [30]time.Duration
	n         int
	pictures  int
	count     int
	frozen    time.Duration
}

// limit is the shortest gap that is a freeze; 0 as long as too little came to say.
func (f *freezes) limit() time.Duration {
	n := min(f.n, len(f.intervals))
	if n < 5 {
		return 0
	}
	var sum time.Duration
	for _, d := range f.intervals[:n] {
		sum += d
	}
	mean := sum / time.Duration(n)
	return max(3*mean, mean+150*time.Millisecond)
}

// show notes that a picture can be shown.
func (f *freezes) show(now time.Time) {
	f.pictures++
	if !f.last.IsZero() {
		gap := now.Sub(f.last)
		if limit := f.limit(); limit > 0 && gap > limit {
			f.count++
			f.frozen += gap
		}
		f.intervals[f.n%len(f.intervals)] = gap
		f.n++
	}
	f.last = now
}

// at is what the freezes are at a time, with one that goes on.
func (f *freezes) at(now time.Time) (count int, frozen time.Duration) {
	count, frozen = f.count, f.frozen
	if limit := f.limit(); limit > 0 && now.Sub(f.last) > limit {
		count, frozen = count+1, frozen+now.Sub(f.last)
	}
	return count, frozen
}

func bySequence(frames []*frame) []*frame {
	slices.SortFunc(frames, func(a, b *frame) int { return int(a.first - b.first) })
	return frames
}
