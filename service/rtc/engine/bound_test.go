package engine

import (
	"errors"
	"strings"
	"testing"
)

// TestBound shows RT-10: of what an endpoint describes, sections, lines and candidates are bounded, and an
// ICE-lite agent takes no candidate at all.
func TestBound(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
	const candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
	section := "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n"
	for _, c := range []struct {
		name       string
		sdp        string
		candidates int
		left       int // candidates in the result
		fails      bool
	}{
		{"empty", "", 0, 0, false},
		{"none for an ICE-lite agent", head + section + candidate + candidate, 0, 0, false},
		{"the first of many", head + section + strings.Repeat(candidate, 100), 3, 3, false},
		{"as many sections as allowed", head + strings.Repeat(section, maxSections), 0, 0, false},
		{"one section more", head + strings.Repeat(section, maxSections+1), 0, 0, true},
		{"as many lines as allowed", strings.Repeat("a=x\r\n", maxLines), 0, 0, false},
		{"one line more", strings.Repeat("a=x\n", maxLines+1), 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := bound(c.sdp, c.candidates)
			if c.fails {
				if !errors.Is(err, ErrTooLarge) {
					t.Fatalf("got %v, want ErrTooLarge", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(got, "a=candidate:"); n != c.left {
				t.Errorf("%d candidates left, want %d", n, c.left)
			}
			if want := strings.ReplaceAll(c.sdp, candidate, ""); strings.ReplaceAll(got, candidate, "") != want {
				t.Error("something else was changed")
			}
		})
	}
}
