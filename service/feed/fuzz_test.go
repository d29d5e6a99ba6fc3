package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

// FuzzFeedSegment reads anything as a file: it takes what is whole, in order, and nothing else, and what it
// takes encodes to the same bytes.
func FuzzFeedSegment(f *testing.F) {
	h, err := json.Marshal(head{Client: "a", Lineage: 7, States: 1})
	if err != nil {
		f.Fatal(err)
	}
	whole := appendFrame(nil, frame{kindHead, 1, h})
	whole = appendFrame(whole, frame{kindState, 0, []byte(`{"call":"c","instance":"i","seq":3}`)})
	e := Event{ID: "x", Type: CallEnded, CallID: "c", Instance: "i", CallSeq: 4}
	whole = appendFrame(whole, frame{kindEvent, 1, e.encode()})
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add([]byte("\xfeev1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newFrameReader(bytes.NewReader(data))
		var again []byte
		for {
			fr, err := r.next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, errDamaged) {
					t.Fatal(err)
				}
				break
			}
			again = appendFrame(again, fr)
		}
		if r.good != int64(len(again)) || !bytes.Equal(again, data[:r.good]) {
			t.Fatalf("%d bytes are good, %d come again", r.good, len(again))
		}
		_ = lastNumber(data[r.good:])
		var l found
		if ok, err := l.scan(newFrameReader(bytes.NewReader(data)), 1); ok && err == nil && l.next < 1 {
			t.Error("no number for the next event")
		}
		l.calls.lost(e.Time)
	})
}
