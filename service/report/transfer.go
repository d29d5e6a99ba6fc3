package report

import (
	"encoding/json"
	"fmt"
)

// recorderState is a Recorder on its way to another process.
type recorderState struct {
	Tiers   [len(tiers)]tierState
	Events  []Event `json:",omitempty"`
	Dropped int     `json:",omitempty"`
	Lost    int     `json:",omitempty"`
}

type tierState struct {
	Full   [][]byte `json:",omitempty"`
	Open   []byte   `json:",omitempty"`
	N      int      `json:",omitempty"` // of Open
	Before *[fields]int64
	Wait   []Point `json:",omitempty"`
}

// MarshalJSON returns all that the recorder keeps.
func (r *Recorder) MarshalJSON() ([]byte, error) {
	st := recorderState{Events: r.events, Dropped: r.dropped, Lost: r.lost}
	for i := range r.tiers {
		t := &r.tiers[i]
		st.Tiers[i] = tierState{Full: t.full, Open: t.open.b, N: t.open.n, Wait: t.wait}
		if t.open.n > 0 {
			st.Tiers[i].Before = &t.open.before
		}
	}
	return json.Marshal(st)
}

// UnmarshalJSON takes what MarshalJSON of the same version, or of one with the same fields, returns.
func (r *Recorder) UnmarshalJSON(text []byte) error {
	var st recorderState
	if err := json.Unmarshal(text, &st); err != nil {
		return err
	}
	*r = Recorder{events: st.Events, dropped: st.Dropped, lost: st.Lost}
	for i, from := range st.Tiers {
		t := &r.tiers[i]
		t.full, t.wait, t.open.b, t.open.n = from.Full, from.Wait, from.Open, from.N
		if from.Before != nil {
			t.open.before = *from.Before
		}
		for _, b := range t.full {
			t.bytes += len(b)
		}
	}
	if size := r.Size(); size > 2*MaxRecorder {
		return fmt.Errorf("recorder of %d bytes", size)
	}
	return nil
}
