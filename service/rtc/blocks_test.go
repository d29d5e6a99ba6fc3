package rtc

import (
	"errors"
	"fmt"
	"testing"

	"rtcd/service/rtc/forward"
)

// A call remembers 10,000 blocks: two for each session, its own and its user's. More are refused.
func TestBlocksAreBounded(t *testing.T) {
	var m moderation
	blocked := func(i int) *session {
		s := &session{}
		s.info.SessionID, s.info.UserID = fmt.Sprint("s", i), fmt.Sprint("u", i)
		return s
	}
	for i := range maxBlocks / 2 {
		if err := m.block(blocked(i), forward.Voice); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	var limit limitError
	last := blocked(maxBlocks / 2)
	if err := m.block(last, forward.Voice); !errors.As(err, &limit) || limit.limit != LimitBlocks {
		t.Errorf("one more: %v", err)
	}
	if !m.blocks(blocked(0), forward.Voice) || m.blocks(last, forward.Voice) || m.blocks(blocked(0), forward.Camera) {
		t.Error("not the first ones are blocked")
	}
}
