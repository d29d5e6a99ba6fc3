package audit

import "context"

type SinkConfig struct{}
type SinkStats struct{}
type sink struct{}

func newSinks(Config, *Recorder) ([]*sink, error) { return nil, nil }
func (*sink) run(context.Context)                 {}
func (*sink) finish()                             {}
func (*sink) snapshot(*view) SinkStats            { return SinkStats{} }
