package speech

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const gone = 255 // sends nothing

// round lets each voice send one packet of its level and returns those admitted. Voices are numbered
// from 1.
func round(f *Floor, now time.Duration, levels ...uint8) (admitted []int) {
	for i, level := range levels {
		if level != gone && f.Admit(uint64(i+1), level, now) {
			admitted = append(admitted, i+1)
		}
	}
	return admitted
}

// rounds repeats a round each 20 ms from start to end, and returns the last admitted and the first
// time at which they were.
func rounds(f *Floor, start, end time.Duration, levels ...uint8) (admitted []int, since time.Duration) {
	for now := start; now < end; now += packetTime {
		if got := round(f, now, levels...); now == start || !slices.Equal(got, admitted) {
			admitted, since = got, now
		}
	}
	return admitted, since
}

func TestFloor(t *testing.T) {
	const ms = time.Millisecond
	type phase struct {
		until  time.Duration
		levels []uint8
		want   []int
		since  time.Duration
	}
	tests := []struct {
		name   string
		places int
		phases []phase
	}{
		{"everybody", 0, []phase{{20 * ms, []uint8{127, 0, 50}, []int{1, 2, 3}, 0}}},
		{"less than nobody is everybody", -1, []phase{{20 * ms, []uint8{127, 0}, []int{1, 2}, 0}}},
		{"room for all, silent ones too", 3, []phase{{1000 * ms, []uint8{127, 30, 127}, []int{1, 2, 3}, 0}}},
		{"the silent make room at once", 2, []phase{
			{100 * ms, []uint8{127, 127, gone}, []int{1, 2}, 0},
			{200 * ms, []uint8{127, 127, 126}, []int{1, 3}, 120 * ms}, // 20 ms after the last packet of 2
		}},
		{"not for other silent ones", 1, []phase{
			{100 * ms, []uint8{127, gone}, []int{1}, 0},
			{5000 * ms, []uint8{127, 127}, []int{1}, 100 * ms},
		}},
		{"an equal does not take the place", 1, []phase{
			{1000 * ms, []uint8{30, gone}, []int{1}, 0},
			{9000 * ms, []uint8{30, 30}, []int{1}, 1000 * ms},
		}},
		{"nor one that is less than 3 dB louder", 1, []phase{
			{1000 * ms, []uint8{30, gone}, []int{1}, 0},
			{9000 * ms, []uint8{30, 28}, []int{1}, 1000 * ms},
		}},
		{"one that is louder does", 1, []phase{
			{1000 * ms, []uint8{40, gone}, []int{1}, 0},
			{3000 * ms, []uint8{40, 34}, []int{2}, 1140 * ms},
		}},
		{"not within 500 ms", 1, []phase{
			{20 * ms, []uint8{40, gone}, []int{1}, 0},
			{2000 * ms, []uint8{40, 0}, []int{2}, 520 * ms},
		}},
		{"a click does not", 1, []phase{
			{1000 * ms, []uint8{30, gone}, []int{1}, 0},
			{1040 * ms, []uint8{30, 10}, []int{1}, 1000 * ms},
			{2000 * ms, []uint8{30, 127}, []int{1}, 1040 * ms},
		}},
		{"the quietest makes room", 2, []phase{
			{1000 * ms, []uint8{50, 40, gone}, []int{1, 2}, 0},
			{3000 * ms, []uint8{50, 40, 30}, []int{2, 3}, 1080 * ms},
		}},
		{"a pause in a sentence does not", 1, []phase{
			{1000 * ms, []uint8{20, 60}, []int{1}, 0},
			{1200 * ms, []uint8{70, 60}, []int{1}, 1000 * ms},
			{2000 * ms, []uint8{20, 60}, []int{1}, 1200 * ms},
		}},
		{"one that is quiet for long does, whatever its level was", 1, []phase{
			{1000 * ms, []uint8{0, gone}, []int{1}, 0},
			{2480 * ms, []uint8{61, gone}, []int{1}, 1000 * ms},
			{3000 * ms, []uint8{61, 59}, []int{2}, 2500 * ms},
		}},
		{"not for others that are quiet", 1, []phase{
			{1000 * ms, []uint8{62, gone}, []int{1}, 0},
			{9000 * ms, []uint8{62, 60}, []int{1}, 1000 * ms},
		}},
		{"one that sends nothing for long makes room for anybody", 1, []phase{
			{1000 * ms, []uint8{0, 127}, []int{1}, 0}, // last at 980 ms
			{9000 * ms, []uint8{gone, 127}, []int{2}, 2480 * ms},
		}},
		{"levels beyond the range are silence", 1, []phase{
			{1000 * ms, []uint8{128, gone}, []int{1}, 0},
			{2000 * ms, []uint8{200, 126}, []int{2}, 1020 * ms},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFloor(tt.places)
			var start time.Duration
			for i, p := range tt.phases {
				got, since := rounds(f, start, p.until, p.levels...)
				if !slices.Equal(got, p.want) || since != p.since {
					t.Errorf("phase %d: %v since %v, want %v since %v", i, got, since, p.want, p.since)
				}
				start = p.until
			}
		})
	}
}

func TestLeave(t *testing.T) {
	f := NewFloor(1)
	rounds(f, 0, time.Second, 20, 21, 127)
	f.Leave(1)
	f.Leave(7) // nobody
	if got := round(f, time.Second, gone, gone, 127); !slices.Equal(got, []int{3}) {
		t.Errorf("admitted %v after the holder left, want 3", got)
	}
	f.Leave(2)
	for _, v := range f.others {
		if v.known {
			t.Errorf("voice %d is remembered, want nobody", v.id)
		}
	}
}

func TestManyChallengers(t *testing.T) {
	f := NewFloor(1)
	now := time.Duration(0)
	var admitted map[uint64]int
	for ; now < 2*time.Second; now += packetTime {
		admitted = map[uint64]int{}
		for id := range uint64(2000) {
			level := uint8(50)
			if id == 1999 && now >= time.Second {
				level = 20
			}
			if f.Admit(id, level, now) {
				admitted[id]++
			}
		}
	}
	if len(admitted) != 1 || admitted[1999] != 1 {
		t.Errorf("admitted %v, want the loudest alone", admitted)
	}
}

// Within 20 ms no more voices are admitted than there are places, whatever the packets.
func TestNeverMoreThanPlaces(t *testing.T) {
	type packet struct {
		id uint64
		at time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 4).Draw(t, "places")
		f := NewFloor(places)
		now := time.Duration(rapid.IntRange(-5000, 0).Draw(t, "start")) * time.Millisecond
		var admitted []packet
		for range rapid.IntRange(1, 300).Draw(t, "packets") {
			now += time.Duration(rapid.SampledFrom([]int{0, 0, 1, 7, 20, 500, 2000}).Draw(t, "gap")) * time.Millisecond
			id := rapid.Uint64Range(0, 6).Draw(t, "voice")
			if rapid.IntRange(0, 30).Draw(t, "leave") == 0 {
				f.Leave(id)
				continue
			}
			if !f.Admit(id, rapid.Uint8().Draw(t, "level"), now) {
				continue
			}
			admitted = append(admitted, packet{id, now})
			voices := map[uint64]bool{}
			for _, p := range admitted {
				if now-p.at < packetTime {
					voices[p.id] = true
				}
			}
			if len(voices) > places {
				t.Fatalf("voices %v within 20 ms, of %d places", voices, places)
			}
		}
	})
}

// A voice that gets 6 dB louder than all others is admitted within 200 ms, if nobody has just come.
func TestLoudestGetsIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 4).Draw(t, "places")
		f := NewFloor(places)
		levels := make([]uint8, rapid.IntRange(places+1, 12).Draw(t, "voices"))
		for i := range levels {
			levels[i] = rapid.Uint8Range(6, 127).Draw(t, "level")
		}
		rounds(f, 0, 3*time.Second, levels...)
		loudest := rapid.IntRange(0, len(levels)-1).Draw(t, "loudest")
		levels[loudest] = slices.Min(levels) - 6
		if got, _ := rounds(f, 3*time.Second, 3200*time.Millisecond, levels...); !slices.Contains(got, loudest+1) {
			t.Fatalf("admitted %v at levels %v", got, levels)
		}
	})
}

// Voices of the same level, with the noise of a steady sound, do not take turns.
func TestEqualVoicesDoNotTakeTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 4).Draw(t, "places")
		f := NewFloor(places)
		level := rapid.Uint8Range(1, 125).Draw(t, "level")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		levels := make([]uint8, places+rapid.IntRange(1, 6).Draw(t, "more"))
		var first []int
		for now := time.Duration(0); now < 20*time.Second; now += packetTime {
			for i := range levels {
				levels[i] = level + uint8(random.IntN(3)) - 1
			}
			got := round(f, now, levels...)
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) {
				t.Fatalf("admitted %v at %v, %v at first", got, now, first)
			}
		}
	})
}

func TestAdmitDoesNotAllocate(t *testing.T) {
	f := NewFloor(3)
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Duration(0)
	allocs := testing.AllocsPerRun(10_000, func() {
		now += time.Millisecond
		id := random.Uint64N(200)
		f.Admit(id, uint8(random.IntN(128)), now)
		if id == 7 {
			f.Leave(random.Uint64N(200))
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for each packet", allocs)
	}
}

func BenchmarkFloor(b *testing.B) {
	for _, voices := range []uint64{10, 100, 1000} {
		b.Run(fmt.Sprint(voices), func(b *testing.B) {
			f := NewFloor(5)
			now := time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				now += packetTime / time.Duration(voices)
				f.Admit(uint64(now)%voices, uint8(now>>12)&127, now)
			}
		})
	}
}
