package codec

import (
	"strconv"
	"strings"
)

// h264Profiles are the profiles by the first two bytes of profile-level-id: idc, and iop where
// mask has a bit (RFC 6184 table 5; constrained-high as in H.264 A.2.4.1).
var h264Profiles = []struct {
	idc, mask, iop uint8
	name           string
}{
	{66, 0b0100_1111, 0b0100_0000, "constrained-baseline"},
	{77, 0b1000_1111, 0b1000_0000, "constrained-baseline"},
	{88, 0b1100_1111, 0b1100_0000, "constrained-baseline"},
	{66, 0b0100_1111, 0b0000_0000, "baseline"},
	{88, 0b1100_1111, 0b1000_0000, "baseline"},
	{77, 0b1010_1111, 0b0000_0000, "main"},
	{100, 0b1111_1111, 0b0000_0000, "high"},
	{100, 0b1111_1111, 0b0000_1100, "constrained-high"},
}

// H264Profile returns what the format parameters of an H.264 payload type say (RFC 6184 section
// 8.1): the profile, one of "constrained-baseline", "baseline", "main", "high" and
// "constrained-high", and the packetization mode. Where a parameter is absent its default counts:
// baseline, and mode 0. The profile is "" and the mode -1 if they are malformed or another one.
func H264Profile(fmtp string) (profile string, packetization int) {
	profile, packetization = "baseline", 0
	for param := range strings.SplitSeq(fmtp, ";") {
		key, value, _ := strings.Cut(param, "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "profile-level-id":
			profile = h264Profile(value)
		case "packetization-mode":
			packetization = -1
			if len(value) == 1 && value[0] >= '0' && value[0] <= '2' {
				packetization = int(value[0] - '0')
			}
		}
	}
	return profile, packetization
}

func h264Profile(id string) string {
	n, err := strconv.ParseUint(id, 16, 24)
	if err != nil || len(id) != 6 {
		return ""
	}
	idc, iop := uint8(n>>16), uint8(n>>8)
	for _, p := range h264Profiles {
		if p.idc == idc && iop&p.mask == p.iop {
			return p.name
		}
	}
	return ""
}
