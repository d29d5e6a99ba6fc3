package service

import (
	"rtcd/service/metrics"
	"rtcd/service/store"
)

// storeSamples tell how much room the store has, for the metrics.
func storeSamples(st *store.Store) func() []metrics.Sample {
	return func() []metrics.Sample {
		space, ok := st.Space()
		if !ok {
			return nil
		}
		return []metrics.Sample{
			{Name: "store_free_bytes", Help: "Free space of the store's volume.", Gauge: true, N: float64(space.Free)},
			{Name: "store_min_free_bytes", Help: "Free space below which registrations are refused.", Gauge: true, N: float64(space.MinFree)},
			{Name: "store_size_bytes", Help: "Size of the store's files.", Gauge: true, N: float64(space.Used)},
			{Name: "store_clients", Help: "Registered backends.", Gauge: true, N: float64(st.Count())},
		}
	}
}
