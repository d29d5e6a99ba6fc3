package media

import "time"

// settle is how long after a receiver and a source have both begun the receiver is expected to get it.
const settle = 3 * time.Second

// An Outcome is what a receiver got of a source in the end.
type Outcome struct {
	Source   *Source
	Expected uint64 // packets that should have come
	Unique   uint64 // that did, each once
	Silent   bool   // nothing came although it should have
}

// Lost is how many packets did not come.
func (o Outcome) Lost() uint64 { return o.Expected - min(o.Unique, o.Expected) }

// Outcomes returns what became of each source of the receiver's room that it got, or should have
// got. until is when the receiver stopped receiving.
//
// What is expected of a source begins with the first packet that came. It ends with the last that was
// sent if the source stopped, at least drain before the receiver did, else with the last that came.
func (r *Receiver) Outcomes(until, drain time.Duration) []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Outcome
	for _, source := range r.ledger.Sources() {
		if source.Room != r.room || source.Sender == r.person || source.Began() == 0 {
			continue
		}
		ended := source.Ended()
		complete := ended != 0 && ended+drain <= until
		if s := r.streams[source.ID]; s != nil {
			out = append(out, s.outcome(complete))
			continue
		}
		began := max(source.Began(), r.since)
		if ended == 0 || ended > until {
			ended = until
		}
		if ended-began < settle {
			continue
		}
		// A rate is enough: of what did not come at all no packet is counted on its own.
		share := float64(ended-began) / float64(max(ended-source.Began(), 1))
		out = append(out, Outcome{Source: source, Expected: uint64(share * float64(source.Sent(0))), Silent: true})
	}
	return out
}

func (s *Stream) outcome(complete bool) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := Outcome{Source: s.source}
	for i, l := range s.layers {
		if l == nil {
			continue
		}
		o.Expected += l.packets.Expected()
		o.Unique += l.packets.Unique()
		if n, ok := l.packets.Newest(); ok && complete && s.source.Layers == 1 {
			o.Expected += uint64(s.source.Sent(i) - 1 - n)
		}
	}
	return o
}
