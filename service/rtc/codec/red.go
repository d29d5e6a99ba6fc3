package codec

// REDPrimary returns the newest block of redundant audio (RFC 2198), which comes last, after the
// copies of earlier ones. It is a part of the payload. ok is false if the payload is malformed or
// the block empty.
func REDPrimary(payload []byte) (primary []byte, ok bool) {
	skip := 0 // bytes of earlier blocks
	for {
		switch {
		case len(payload) == 0:
			return nil, false
		case payload[0]&0x80 == 0: // the last header
			payload = payload[1:]
			if skip >= len(payload) {
				return nil, false
			}
			return payload[skip:], true
		case len(payload) < 4:
			return nil, false
		}
		skip += int(payload[2]&3)<<8 | int(payload[3])
		payload = payload[4:]
	}
}
