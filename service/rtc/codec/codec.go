// Package codec tells from the bytes of video packets what a server has to know to forward them:
// where frames and keyframes start, which layer a packet belongs to, and where a receiver may be
// moved up a layer.
//
// It reads the payload formats of VP8 (RFC 7741), VP9 (RFC 9628), H.264 (RFC 6184) and AV1, and
// the dependency descriptor (both AV1 RTP payload format, aomedia.org). Payloads may be encrypted
// from end to end, which nothing announces, so a payload is believed only once a keyframe in it
// has proven that it can be read; until then, and where there is no dependency descriptor, nothing
// is known of a packet.
//
// It is pure: no goroutine, no lock, no clock. Parsing never panics and does not allocate.
package codec

import "strings"

// Codec is a video codec.
type Codec uint8

// The codecs that payloads are understood of. Other has only dependency descriptors.
const (
	Other Codec = iota
	VP8
	VP9
	H264
	AV1
)

// Of returns the codec of a MIME type such as "video/VP8", in any case; Other if it is none of
// the known ones.
func Of(mime string) Codec {
	for c := VP8; c <= AV1; c++ {
		if strings.EqualFold(mime, "video/"+c.String()) {
			return c
		}
	}
	return Other
}

// String returns the name of the codec, as in its MIME type.
func (c Codec) String() string {
	switch c {
	case VP8:
		return "VP8"
	case VP9:
		return "VP9"
	case H264:
		return "H264"
	case AV1:
		return "AV1"
	}
	return "other"
}

// Limits of the layers of a stream.
const (
	MaxSpatials  = 4
	MaxTemporals = 8
)

// A Descriptor is what can be told of a packet. Its zero value says that nothing can.
type Descriptor struct {
	// Start says that the packet is the first of a frame (with spatial layers: of the frame of
	// one layer), End that it is the last. Where that cannot be told they are false: End is only
	// known with VP9 and dependency descriptors, and the RTP marker ends a whole picture.
	Start, End bool

	// Keyframe marks the first packet of a keyframe: a receiver that got nothing before can
	// begin with it.
	Keyframe bool

	// Known says that the payload or the dependency descriptor was understood. Without it only
	// Frame and the Start and End that come with it are set.
	Known bool

	// The layer of the packet, below MaxSpatials and MaxTemporals.
	Spatial, Temporal uint8

	// Spatials and Temporals are how many layers the stream is known to have, at least 1 where
	// Known. What a structure declares inactive does not count.
	Spatials, Temporals uint8

	// Switch says which layers may be added with this packet, which is then a Start. Bit 8*s+t:
	// one who already forwards spatial layer s without a gap may forward temporal layers up to t
	// of it, and of those below, from here on. Bit 8*s, which is set for t = 0: one who does not
	// yet forward spatial layer s, but those below it, may begin to; with s = 0, one who
	// forwarded nothing. All bits are set for a keyframe. See CanSwitch and Rise.
	Switch uint32

	// Frame is the frame number of the dependency descriptor, if HasFrame. It stands in bytes 1
	// and 2 of the descriptor, big-endian.
	Frame    uint16
	HasFrame bool

	// Picture is set only if the payload itself was understood, which a dependency descriptor
	// does not imply.
	Picture Picture
}

// everything is the Switch of a keyframe.
const everything = ^uint32(0)

// bit returns the bit of Switch for a layer, 0 for impossible ones.
func bit(spatial, temporal uint8) uint32 {
	if spatial >= MaxSpatials || temporal >= MaxTemporals {
		return 0
	}
	return 1 << (MaxTemporals*spatial + temporal)
}

// CanSwitch reports whether Switch has the bit of these layers.
func (d Descriptor) CanSwitch(spatial, temporal uint8) bool {
	return d.Switch&bit(spatial, temporal) != 0
}

// Rise returns the layers to forward from this packet on for one who has forwarded spatial and
// temporal layers up to the given ones and wants those up to toSpatial and toTemporal. It returns
// what it was given where the packet allows no more, and never takes layers away. Spatial layers
// are added one at a time, so to rise by two takes two packets, which a keyframe brings one after
// the other.
func (d *Descriptor) Rise(spatial, temporal, toSpatial, toTemporal uint8) (uint8, uint8) {
	if d.Switch == everything {
		return max(spatial, toSpatial), max(temporal, toTemporal)
	}
	if next := spatial + 1; next <= toSpatial && d.Spatial == next && d.CanSwitch(next, 0) {
		spatial = next
	}
	for t := min(toTemporal, MaxTemporals-1); t > temporal; t-- {
		if d.CanSwitch(spatial, t) {
			return spatial, t
		}
	}
	return spatial, temporal
}

// Picture says where the picture ID of VP8 and VP9 stands in a payload.
type Picture struct {
	ID    uint16
	At    uint8 // offset in the payload; 0: there is none
	Wide  bool  // the ID has 15 bits, else 7
	TL0   uint8 // index of the picture of the lowest temporal layer (TL0PICIDX)
	TL0At uint8 // its offset; 0: there is none
}

// Put writes other numbers into the payload, in as many bits as they have in it. The payload is
// the one that was parsed, or a copy.
func (pic Picture) Put(payload []byte, id uint16, tl0 uint8) {
	if at := int(pic.At); at != 0 {
		switch {
		case pic.Wide && at+1 < len(payload):
			payload[at] = 0x80 | byte(id>>8)
			payload[at+1] = byte(id)
		case !pic.Wide && at < len(payload):
			payload[at] = byte(id) & 0x7f
		}
	}
	if at := int(pic.TL0At); at != 0 && at < len(payload) {
		payload[at] = tl0
	}
}
