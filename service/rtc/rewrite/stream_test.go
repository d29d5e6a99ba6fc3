package rewrite

import (
	"testing"

	"pgregory.net/rapid"
)

func TestStream(t *testing.T) {
	const base = 1<<32 | 65530
	var s Stream
	type step struct {
		do   string
		n    uint64
		want uint64 // less base; what is not mapped: no
	}
	const no = 1 << 40
	for i, st := range []step{
		{"drop", 3, no}, // nothing began yet
		{"insert", 0, no},
		{"map", 10, 10},
		{"map", 9, no}, // before the first one
		{"map", 11, 11},
		{"map", 14, 14}, // 12 and 13 are missing
		{"drop", 15, no},
		{"drop", 16, no},
		{"map", 12, 12}, // late, before what was left out
		{"map", 17, 15},
		{"insert", 0, 16},
		{"insert", 0, 17},
		{"map", 19, 19}, // 18 is missing: its number is 18
		{"drop", 20, no},
		{"drop", 18, 18}, // late, and left out: a hole
		{"map", 13, 13},
		{"map", 21, 20},
		{"switch", 0, 0},
		{"map", 22, 21}, // of the new source
		{"map", 21, no},
		{"switch", 0, 0},
		{"insert", 0, no},
		{"map", 3, 22},
		{"map", 4, 23},
		{"drop", 2, no},
	} {
		var got uint64
		ok := false
		switch st.do {
		case "map":
			got, ok = s.Map(base + st.n)
		case "drop":
			got, ok = s.Drop(base + st.n)
		case "insert":
			got, ok = s.Insert()
		case "switch":
			s.Switch()
			continue
		}
		if ok != (st.want != no) || ok && got-base != st.want {
			t.Fatalf("step %d, %s %d: %d, %v, want %d", i, st.do, st.n, got-base, ok, st.want)
		}
	}
}

func TestStreamBegins(t *testing.T) {
	var s Stream
	s.Begin(2 << 32)
	for i := range uint64(3) {
		if got, ok := s.Map(77 + i); !ok || got != 2<<32+i {
			t.Fatalf("packet %d: %d, %v", i, got, ok)
		}
	}
	s.Begin(5) // too late
	if got, _ := s.Map(80); got != 2<<32+3 {
		t.Fatalf("after the beginning: %d", got)
	}
}

// However packets come, are left out and put in: no number is used twice, those of packets that came
// in order go up, and there is a number for each packet that is only late.
func TestStreamProperties(t *testing.T) { rapid.Check(t, streamProperties) }

func FuzzStream(f *testing.F) { f.Fuzz(rapid.MakeFuzz(streamProperties)) }

func streamProperties(t *rapid.T) {
	var s Stream
	used := make(map[uint64]string)
	use := func(number uint64, what string) {
		if was, ok := used[number]; ok {
			t.Fatalf("%d used for %s and for %s", number, was, what)
		}
		used[number] = what
	}
	source := rapid.Uint64Range(1<<32, 1<<32+1<<17).Draw(t, "first")
	var missing []uint64                                         // of the source, in its order
	began, taken, highest, changes := false, false, uint64(0), 0 // taken: of this source
	for range rapid.IntRange(1, 200).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"map", "map", "map", "drop", "gap", "late", "late drop", "insert", "switch"}).Draw(t, "step") {
		case "map":
			source++
			number, ok := s.Map(source)
			if !ok || began && number <= highest {
				t.Fatalf("packet %d in order: %d, %v, after %d", source, number, ok, highest)
			}
			use(number, "a packet")
			began, taken, highest = true, true, number
		case "drop":
			source++
			if _, hole := s.Drop(source); hole {
				t.Fatalf("packet %d, left out in order, left a hole", source)
			}
			changes++
		case "gap":
			if taken {
				source++
				missing = append(missing, source)
			}
		case "late", "late drop":
			if len(missing) == 0 || missing[len(missing)-1] == source {
				continue
			}
			n := missing[0]
			missing = missing[1:]
			if number, ok := s.Map(n); ok {
				use(number, "a late one")
			} else if changes < keptEpochs {
				t.Fatalf("there is no place for packet %d", n)
			}
		case "insert":
			if number, ok := s.Insert(); ok {
				if number <= highest {
					t.Fatalf("%d put in after %d", number, highest)
				}
				use(number, "what is put in")
				changes++
			}
		case "switch":
			s.Switch()
			source = rapid.Uint64Range(1<<32, 1<<32+1<<17).Draw(t, "next")
			missing, changes, taken = nil, 0, false
		}
	}
}

func TestUnwrapper(t *testing.T) {
	var u Unwrapper
	want := uint64(first | 32760)
	for n := uint16(32760); ; n = (n + 1) % 32768 {
		if got := u.Unwrap(n, 15); got != want {
			t.Fatalf("%d: %d, want %d", n, got, want)
		}
		if want++; want > first+32768+10 {
			break
		}
	}
	if got := u.Unwrap(32767, 15); got != first|32767 {
		t.Errorf("a late one: %d", got)
	}
}

func TestOffset(t *testing.T) {
	var o Offset
	for i, c := range []struct {
		n      uint16
		newest bool
		want   uint8
	}{{250, true, 250}, {252, true, 252}, {251, false, 251}, {255, true, 255}, {0, true, 0}} {
		if got := uint8(o.Map(c.n, c.newest)); got != c.want {
			t.Errorf("step %d: %d, want %d", i, got, c.want)
		}
	}
	o.Switch()
	if got := uint8(o.Map(99, true)); got != 1 {
		t.Errorf("after the exchange: %d, want 1", got)
	}
	if got := uint8(o.Map(101, true)); got != 3 {
		t.Errorf("two further: %d, want 3", got)
	}
}
