package engine

import (
	"errors"
	"fmt"
	"strings"
)

// Limits on an endpoint's description, checked before it is parsed.
const (
	maxSections = 1024
	maxLines    = 32 << 10
)

// ErrTooLarge: a description has more in it than any endpoint needs.
var ErrTooLarge = errors.New("description too large")

// bound refuses a description with too many sections or lines, and returns it with no more
// candidates than given: the first, and none for an agent that never sends a check.
func bound(sdp string, candidates int) (string, error) {
	var b strings.Builder
	b.Grow(len(sdp))
	sections, lines := 0, 0
	for line := range strings.Lines(sdp) {
		if lines++; lines > maxLines {
			return "", fmt.Errorf("%w: more than %d lines", ErrTooLarge, maxLines)
		}
		switch {
		case strings.HasPrefix(line, "m="):
			if sections++; sections > maxSections {
				return "", fmt.Errorf("%w: more than %d media sections", ErrTooLarge, maxSections)
			}
		case strings.HasPrefix(line, "a=candidate:"):
			if candidates--; candidates < 0 {
				continue
			}
		}
		b.WriteString(line)
	}
	return b.String(), nil
}
