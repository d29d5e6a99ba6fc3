package feed

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrCursor is the error of a cursor that this server never made.
var ErrCursor = errors.New("no cursor of this feed")

// cursorLen is the length of every cursor.
const cursorLen = 32

// Now is the cursor of whoever wants nothing that has been.
const Now = "now"

// A cursor is a place in the log of one client: behind the event with the number seq. The lineage tells
// logs of one client apart: it is the time at which the log was begun, and a log that is lost, or that
// was only in memory, is followed by one of a later lineage. Two cursors of a client are in the order of
// their places, as text too.
type cursor struct{ lineage, seq uint64 }

func (c cursor) String() string { return fmt.Sprintf("%016x%016x", c.lineage, c.seq) }

func parseCursor(text string) (cursor, error) {
	if len(text) != cursorLen || strings.Trim(text, "0123456789abcdef") != "" {
		return cursor{}, ErrCursor
	}
	lineage, err := strconv.ParseUint(text[:cursorLen/2], 16, 64)
	if err != nil {
		return cursor{}, ErrCursor
	}
	seq, err := strconv.ParseUint(text[cursorLen/2:], 16, 64)
	if err != nil {
		return cursor{}, ErrCursor
	}
	return cursor{lineage, seq}, nil
}
