package codec

// Parser is the state of one RTP stream, about 4 kB. It is not safe for concurrent use.
type Parser struct {
	codec Codec

	// proven says that a keyframe has shown that payloads can be read. A keyframe that does not
	// look like one takes that back: encryption may begin in the middle of a call.
	proven bool

	spatials, temporals uint8 // layers seen in payloads

	h264       h264State
	av1        layer // of the last OBU that told
	dependency dependency
}

// NewParser returns a Parser for a stream of that codec.
func NewParser(c Codec) *Parser {
	return &Parser{codec: c, spatials: 1, temporals: 1}
}

// Parse fills d with what can be told of a packet, whatever it held before. dependency is the
// value of the packet's dependency descriptor extension, nil if it has none; with it, the payload
// is not asked for anything but its Picture. Both are only read. Packets are to be parsed in the
// order of their arrival, each once.
func (p *Parser) Parse(payload, dependency []byte, d *Descriptor) {
	*d = Descriptor{}
	if len(dependency) == 0 {
		p.parsePayload(payload, d)
		return
	}
	p.dependency.parse(dependency, d)
	if p.codec != VP8 && p.codec != VP9 {
		return
	}
	var inPayload Descriptor
	p.parsePayload(payload, &inPayload)
	if d.Keyframe && !inPayload.Keyframe {
		p.unprove()
		return
	}
	d.Picture = inPayload.Picture
}

func (p *Parser) parsePayload(payload []byte, d *Descriptor) {
	switch p.codec {
	case VP8:
		p.parseVP8(payload, d)
	case VP9:
		p.parseVP9(payload, d)
	case H264:
		p.parseH264(payload, d)
	case AV1:
		p.parseAV1(payload, d)
	}
}

// unprove forgets what the payloads have shown.
func (p *Parser) unprove() {
	p.proven, p.spatials, p.temporals = false, 1, 1
}

// understood marks the packet as one of a proven stream.
func (p *Parser) understood(d *Descriptor) {
	d.Known = true
	p.spatials = max(p.spatials, d.Spatial+1)
	p.temporals = max(p.temporals, d.Temporal+1)
	d.Spatials, d.Temporals = p.spatials, p.temporals
}
