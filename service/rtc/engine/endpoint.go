package engine

import (
	"strings"

	"github.com/pion/sdp/v3"
)

// other is what an endpoint uses a number for that we do not know.
const other = "?"

// endpoint is what the descriptions of one endpoint have told so far. In one BUNDLE group a payload
// type, and the id of a header extension, may not stand for two things (RFC 9143 sections 9.1 and
// 9.2), so what was agreed once is used again.
type endpoint struct {
	payloadTypes map[string]uint8 // by codec.key, keyRTX or nameRED
	payloads     [128]string      // what each stands for; "": nothing yet
	ids          map[string]uint8 // of header extensions, by URI
	uris         [maxExtension + 1]string

	red  int  // whether it knows redundant audio: 1, or -1 if it prefers it; else 0
	nack bool // it may ask for audio again, or be asked

	heard [2]bool         // it has described a section on which it receives video, audio
	takes map[string]bool // codec.key of what it can receive
}

func newEndpoint() *endpoint {
	return &endpoint{
		payloadTypes: make(map[string]uint8), ids: make(map[string]uint8), takes: make(map[string]bool),
	}
}

// note learns from a section that the endpoint has described.
func (e *endpoint) note(m *sdp.MediaDescription) {
	audio := m.MediaName.Media == "audio"
	if !audio && m.MediaName.Media != "video" || rejected(m) {
		return
	}
	all := formats(m)
	hears := directed(m, sdp.AttrKeyRecvOnly)
	if hears {
		e.heard[kind(audio)] = true
	}
	for i := range all {
		f := &all[i]
		c := f.codec(audio)
		switch {
		case c != nil:
			e.use(c.key(), f.pt)
			if hears {
				e.takes[c.key()] = true
			}
			e.nack = e.nack || c == opus && f.feedback&feedbackNACK != 0
		case strings.EqualFold(f.name, nameRTX):
			e.noteRTX(audio, all, f)
		case audio && strings.EqualFold(f.name, nameRED):
			e.noteRED(all, i)
		default:
			e.use(other, f.pt)
		}
	}
	for _, x := range extIDs(m) {
		if extensionOf(x.uri, audio) == nil {
			x.uri = other
		}
		if e.uris[x.id] != "" {
			continue
		}
		if e.uris[x.id] = x.uri; x.uri != other && e.ids[x.uri] == 0 {
			e.ids[x.uri] = x.id
		}
	}
}

// noteRED learns what the i-th format, of redundant audio, carries.
func (e *endpoint) noteRED(all []format, i int) {
	for j := range all {
		if all[j].codec(true) != opus || !all[i].carries(all[j].pt) {
			continue
		}
		e.use(nameRED, all[i].pt)
		if e.red = 1; i < j {
			e.red = -1
		}
		return
	}
	e.use(other, all[i].pt)
}

// noteRTX learns what a payload type repairs.
func (e *endpoint) noteRTX(audio bool, all []format, f *format) {
	apt, ok := f.repairs()
	for i := range all {
		if c := all[i].codec(audio); ok && all[i].pt == apt && c != nil {
			e.use(keyRTX(c), f.pt)
			return
		}
	}
	e.use(other, f.pt)
}

// use notes that a payload type stands for what has that key. What came first counts, so that no
// two things have one payload type, whatever the endpoint says.
func (e *endpoint) use(key string, pt uint8) {
	if e.payloads[pt] != "" {
		return
	}
	e.payloads[pt] = key
	if _, ok := e.payloadTypes[key]; !ok && key != other {
		e.payloadTypes[key] = pt
	}
}

// payloadType returns the payload type to offer for what has that key: the agreed one, else the
// usual one, else one that is free, at least of what we know.
func (e *endpoint) payloadType(key string, usual uint8) uint8 {
	if pt, ok := e.payloadTypes[key]; ok {
		return pt
	}
	pt := usual
	for _, free := range []string{"", other} {
		// Not 64 to 95, which are RTCP's (RFC 5761 section 4), nor the static ones.
		for n := uint8(127); e.payloads[pt] != free && n >= 35; n-- {
			if n < 64 || n >= 96 {
				pt = n
			}
		}
		if e.payloads[pt] == free {
			break
		}
	}
	e.payloadTypes[key], e.payloads[pt] = pt, key
	return pt
}

// extensionID returns the id to offer for a header extension, 0 if none is left.
func (e *endpoint) extensionID(x *headerExtension) uint8 {
	if id := e.ids[x.uri]; id != 0 {
		return id
	}
	id := x.id
	for n := uint8(maxExtension); e.uris[id] != "" && n >= 1; n-- {
		id = n
	}
	if e.uris[id] != "" {
		return 0
	}
	e.ids[x.uri], e.uris[id] = id, x.uri
	return id
}

// accepts reports what Peer.Takes is asked.
func (e *endpoint) accepts(c *codec) bool {
	for _, k := range append([]*codec{opus}, videoCodecs...) {
		if k.family == c.family && e.takes[k.key()] {
			return true
		}
	}
	return false
}

// kind is the index of audio, or of video.
func kind(audio bool) int {
	if audio {
		return 1
	}
	return 0
}
