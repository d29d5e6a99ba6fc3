package rtctest

import (
	"slices"
	"testing"
	"time"
)

// What is missing is asked for soon, again when that is overdue, and not any more once it has come.
func TestAsker(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var a asker
	check := func(ms int, want ...uint16) {
		t.Helper()
		if got := a.due(at(ms)); !slices.Equal(got, want) {
			t.Errorf("after %d ms asks for %d, want %d", ms, got, want)
		}
	}
	a.arrived(65533, at(0))
	a.arrived(2, at(20)) // 65534, 65535, 0 and 1 are missing
	check(25)
	a.arrived(65535, at(28)) // was only out of order
	check(30, 65534, 0, 1)
	check(70)
	a.arrived(65534, at(80))
	a.arrived(65534, at(81)) // twice
	check(129)
	check(130, 0, 1)
	a.arrived(0, at(330)) // answers take longer than it was patient
	check(330, 1)
	check(425)
	check(480, 1)
	a.arrived(1, at(490))
	check(2000)

	a.arrived(5000, at(2000)) // another beginning: nothing is missing
	check(2100)
	a.arrived(5002, at(2100))
	for i := range 10 {
		check(3000+2000*i, 5001)
	}
	check(30_000) // it gives up
	a.arrived(5004, at(30_000))
	for n := range uint16(512) {
		a.arrived(5005+n, at(30_000))
	}
	check(31_000) // too old
	if len(a.missing) > 0 {
		t.Errorf("%d are still missing", len(a.missing))
	}
}
