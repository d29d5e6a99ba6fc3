package forward

// Extensions are the ids of the header extensions that were negotiated for a section (RFC 8285), 1
// to 14; 0: not negotiated.
type Extensions struct {
	MID       uint8 // RFC 9143
	RID       uint8 // RFC 8852
	RepairRID uint8 // RFC 8852

	AudioLevel uint8 // RFC 6464
	TWCC       uint8 // transport-wide-cc, counted over all sections
	SendTime   uint8 // abs-send-time
	Delay      uint8 // playout-delay
	Capture    uint8 // abs-capture-time
	Rotation   uint8 // video-orientation (3GPP TS 26.114)
	Dependency uint8 // dependency descriptor (AV1 RTP payload format, appendix A)
}

// valid reports whether all ids are possible.
func (e *Extensions) valid() bool {
	for _, id := range []uint8{e.MID, e.RID, e.RepairRID, e.AudioLevel, e.TWCC, e.SendTime, e.Delay, e.Capture, e.Rotation, e.Dependency} {
		if id > maxOneByteID {
			return false
		}
	}
	return true
}
