package rtc

import (
	"testing"

	"rtcd/service/metrics"
	"rtcd/service/rtc/netio"
)

// Each drop at the sockets that is no fault of a packet or a path is a hit of a limit, and no two
// limits have the same name.
func TestPortLimits(t *testing.T) {
	none := map[netio.Drop]bool{
		netio.DropMalformed: true, netio.DropTruncated: true, netio.DropUnknownMedia: true, netio.DropAlert: true, netio.DropForged: true,
		netio.DropSendBuffer: true, netio.DropUnreachable: true, netio.DropForbidden: true, netio.DropTooLarge: true,
		netio.DropSendError: true, netio.DropPaused: true, netio.DropNoPath: true, netio.DropIdle: true, netio.DropStalled: true,
	}
	seen := make(map[metrics.Limit]bool)
	for i := range (netio.Drops{}) {
		d := netio.Drop(i)
		limit, ok := portLimits[d]
		if ok == none[d] {
			t.Errorf("%v: limit %q, want one: %v", d, limit, !none[d])
		}
		if ok && seen[limit] {
			t.Errorf("%s stands for two", limit)
		}
		seen[limit] = true
	}
}
