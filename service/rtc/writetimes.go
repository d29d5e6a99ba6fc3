package rtc

import (
	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
)

type writeKey struct {
	group  string
	source forward.Source
}

// writeTime returns the histogram that all publications of a group and source share.
func (s *Server) writeTime(group string, source forward.Source) *forward.Histogram {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	k := writeKey{group, source}
	h := s.writes[k]
	if h == nil {
		h = new(forward.Histogram)
		s.writes[k] = h
	}
	return h
}

// writeTimes is what the metrics read at each scrape.
func (s *Server) writeTimes() []metrics.WriteTimes {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	bounds := metrics.WriteBuckets()
	out := make([]metrics.WriteTimes, 0, len(s.writes))
	for k, h := range s.writes {
		snap := h.Snapshot()
		w := metrics.WriteTimes{GroupID: k.group, Source: metricSource(k.source), Sum: snap.Sum}
		var below uint64
		for _, b := range bounds {
			n := snap.Buckets[b]
			w.Counts = append(w.Counts, n-below)
			below = n
		}
		w.Counts = append(w.Counts, snap.Count-below)
		out = append(out, w)
	}
	return out
}

func metricSource(s forward.Source) metrics.Source {
	switch s {
	case forward.Voice:
		return metrics.Voice
	case forward.ScreenAudio:
		return metrics.ScreenAudio
	case forward.Screen:
		return metrics.Screen
	default:
		return metrics.Video
	}
}
