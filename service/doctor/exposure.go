package doctor

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"rtcd/config"
)

const adminSecretKey = "api.security.admin_secret_key"

// sayTheSame has, for findings, the keys of the faults and warnings of the configuration that say no
// more than they do.
var sayTheSame = map[string][]string{
	storeWorldWritable: {"store.data_source"},
	storeParentOpen:    {"store.data_source"},
	certUnreadable:     {"api.http.tls.cert_file", "api.http.tls.cert_key"},
	certKeyMismatch:    {"api.http.tls.cert_key"},
	certExpired:        {"api.http.tls.cert_file"},
	certExpiring:       {"api.http.tls.cert_file"},
	certNotYet:         {"api.http.tls.cert_file"},
	selfRegistration:   {"api.security.allow_self_registration"},
	adminPublic:        {"api.admin.listen_address"},
	adminSecretWeak:    {adminSecretKey},
}

// checkConfig tells what the load of the configuration found and no other check has told. It comes
// last.
func checkConfig(_ context.Context, v *visit) {
	if v.Report == nil {
		return
	}
	told := map[string]bool{}
	for _, f := range v.findings {
		for _, key := range sayTheSame[f.ID] {
			told[key] = true
		}
	}
	for _, f := range v.Report.Faults {
		if !told[f.Key] {
			v.add(configInvalid, "%s", f.String())
		}
	}
	if v.Report.Err != nil && len(v.Report.Faults) == 0 {
		v.add(configInvalid, "%v", v.Report.Err)
	}
	for _, w := range v.Report.Warnings {
		if key, _, _ := strings.Cut(w, " "); !told[key] {
			v.add(configWarning, "%s", w)
		}
	}
}

// checkExposure looks what is open to whom.
func checkExposure(_ context.Context, v *visit) {
	h, s, admin := v.Config.API.HTTP, v.Config.API.Security, v.Config.API.Admin
	if !loopback(h.ListenAddress) {
		nets := len(s.RegistrationCIDRs) > 0 && !everywhere(s.RegistrationCIDRs)
		fenced := s.RegistrationToken != "" || nets || h.TLS.Enable && h.TLS.ClientAuth == config.ClientAuthRequire
		if s.AllowSelfRegistration && !fenced {
			v.add(selfRegistration, "api.security.allow_self_registration = true with api.http.listen_address = %q", h.ListenAddress)
		}
		if !h.TLS.Enable && len(h.TrustedProxies) == 0 {
			v.add(plainHTTP, "api.http.tls.enable = false with api.http.listen_address = %q", h.ListenAddress)
		}
	}
	if admin.ListenAddress != "" && !loopback(admin.ListenAddress) && (!admin.TLS.Enable || !s.EnableAdmin) {
		v.add(adminPublic, "api.admin.listen_address = %q with api.admin.tls.enable = %v and api.security.enable_admin = %v",
			admin.ListenAddress, admin.TLS.Enable, s.EnableAdmin)
	}
	if rule := v.weakAdminSecret(); s.EnableAdmin && rule != "" {
		v.add(adminSecretWeak, "%s %s", adminSecretKey, rule)
	}
}

// weakAdminSecret says what the rules of the configuration have against the admin's key, or "".
func (v *visit) weakAdminSecret() string {
	c := v.Config
	c.Mode = config.ModeDropIn // in which weak secrets are warnings
	for _, w := range c.Warnings() {
		if rest, ok := strings.CutPrefix(w, adminSecretKey+" = "); ok {
			_, rule, _ := strings.Cut(rest, " ")
			rule, _, _ = strings.Cut(rule, ";")
			return rule
		}
	}
	return ""
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// everywhere reports whether a list of prefixes has all addresses of a family in one.
func everywhere(list []string) bool {
	prefixes, err := config.Prefixes(list)
	return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Bits() == 0 })
}
