package service

import (
	"context"

	"rtcd/service/api"
	"rtcd/service/doctor"
)

// checkUp logs what is wrong with this machine, or with the configuration for it. Nothing that is
// found keeps the server from serving; the status page shows it.
func (s *Server) checkUp(ctx context.Context, opts Options) {
	for _, f := range doctor.Startup(ctx, doctor.Options{Config: s.cfg, MemoryStore: opts.MemoryStore}, s.log) {
		if f.Severity != doctor.Info {
			s.findings = append(s.findings, api.FindingStatus{ID: f.ID, Severity: string(f.Severity), What: f.What, Fix: f.Fix})
		}
	}
}
