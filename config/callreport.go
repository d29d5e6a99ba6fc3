package config

import "time"

// CallReport is about the reports on calls: what went wrong, when, and on whose leg.
type CallReport struct {
	Enable    bool          `toml:"enable" env:"RTCD_REPORT_ENABLE" default:"true"`
	KeepCalls int           `toml:"keep_calls" env:"RTCD_REPORT_KEEPCALLS" default:"20"` // of a backend, in memory
	MemoryMiB int           `toml:"memory_mib" env:"RTCD_REPORT_MEMORYMIB" default:"64"`
	Dir       string        `toml:"dir" env:"RTCD_REPORT_DIR" default:""` // "" = in memory alone
	KeepMiB   int           `toml:"keep_mib" env:"RTCD_REPORT_KEEPMIB" default:"512"`
	KeepFor   time.Duration `toml:"keep_for" env:"RTCD_REPORT_KEEPFOR" default:"168h"`
	Addresses bool          `toml:"addresses" env:"RTCD_REPORT_ADDRESSES" default:"false"`
}

func (k *checking) checkCallReport() {
	r := k.Report
	k.between("report.keep_calls", r.KeepCalls, 1, 10_000)
	k.between("report.memory_mib", r.MemoryMiB, 1, 1<<16)
	k.between("report.keep_mib", r.KeepMiB, 1, 1<<20)
	k.duration("report.keep_for", r.KeepFor, time.Minute, 10*365*24*time.Hour)
	if r.Dir != "" {
		k.checkFolder("report.dir", r.Dir)
	}
}
