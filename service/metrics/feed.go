package metrics

// SetFeed plugs in where the samples of the event feed come from. It is called once, under the rules of
// SetMedia.
func (m *Metrics) SetFeed(snapshot func() []Sample) {
	c := new(mediaSamples)
	c.snapshot.Store(&snapshot)
	m.Registry().MustRegister(c)
}
