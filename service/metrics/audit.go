package metrics

// SetAudit plugs in where the samples of the audit log come from. It is called once, under the rules
// of SetMedia.
func (m *Metrics) SetAudit(snapshot func() []Sample) {
	c := new(mediaSamples)
	c.snapshot.Store(&snapshot)
	m.Registry().MustRegister(c)
}
