package service

import (
	"context"

	"rtcd/service/doctor"
)

// checkUp logs what is wrong with this machine, or with the configuration for it. Nothing that is
// found keeps the server from serving.
func (s *Server) checkUp(ctx context.Context, opts Options) {
	doctor.Startup(ctx, doctor.Options{Config: s.cfg, MemoryStore: opts.MemoryStore}, s.log)
}
