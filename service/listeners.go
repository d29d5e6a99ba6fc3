package service

import (
	"net/netip"

	"rtcd/config"
	"rtcd/service/api"
)

// What listeners are for, in the table of listeners.
const (
	forBackends  = "backends: HTTP and WebSocket"
	forOperator  = "the operator: administration, metrics, profiles"
	forMediaUDP  = "end users: media"
	forMediaTCP  = "end users without UDP: media"
	mediaSecured = "dtls"
)

// Listeners returns what a server of the configuration would listen on, without opening anything.
// Ports that are chosen at the start are 0.
func Listeners(cfg config.Config) (api.ListenerTable, error) {
	media, err := mediaConfig(cfg.RTC)
	if err != nil {
		return nil, err
	}
	public := publicConfig(cfg)
	table := api.ListenerTable{{Name: "api", Network: "tcp", Address: public.Address, TLS: public.TLSText(), For: forBackends}}
	if admin := adminConfig(cfg); admin.Address != "" {
		table = append(table, api.Listener{Name: "admin", Network: "tcp", Address: admin.Address, TLS: admin.TLSText(), For: forOperator})
	}
	return append(table, mediaListeners(media.UDPAddrs, media.TCPAddrs)...), nil
}

// Listeners returns what the server listens on.
func (s *Server) Listeners() api.ListenerTable {
	table := api.ListenerTable{{Name: "api", Network: "tcp", Address: s.public.Addr().String(), TLS: publicConfig(s.cfg).TLSText(), For: forBackends}}
	if s.admin != nil {
		table = append(table, api.Listener{Name: "admin", Network: "tcp", Address: s.admin.Addr().String(), TLS: adminConfig(s.cfg).TLSText(), For: forOperator})
	}
	return append(table, mediaListeners(s.mediaUDP, s.mediaTCP)...)
}

func mediaListeners(udp, tcp []netip.AddrPort) api.ListenerTable {
	var table api.ListenerTable
	for _, a := range udp {
		table = append(table, api.Listener{Name: "media", Network: "udp", Address: a.String(), TLS: mediaSecured, For: forMediaUDP})
	}
	for _, a := range tcp {
		table = append(table, api.Listener{Name: "media", Network: "tcp", Address: a.String(), TLS: mediaSecured, For: forMediaTCP})
	}
	return table
}

// publicConfig is the listener for backends.
func publicConfig(c config.Config) api.ServerConfig {
	perIP := c.API.Limits.ConnectionsPerIP
	if perIP == 0 {
		perIP = -1 // off
	}
	cfg := api.ServerConfig{
		Address:                  c.API.HTTP.ListenAddress,
		MaxConnections:           c.API.Limits.Connections,
		MaxConnectionsPerAddress: perIP,
	}
	if t := c.API.HTTP.TLS; t.Enable {
		secure(&cfg, t, t.ClientAuth)
	}
	return cfg
}

// adminConfig is the operator's listener; without an address there is none.
func adminConfig(c config.Config) api.ServerConfig {
	cfg := api.ServerConfig{Address: c.API.Admin.ListenAddress}
	if t := c.API.Admin.TLS; t.Enable {
		secure(&cfg, c.API.HTTP.TLS, t.ClientAuth)
	}
	return cfg
}

func secure(cfg *api.ServerConfig, t config.TLS, auth config.ClientAuth) {
	cfg.CertFile, cfg.KeyFile = t.CertFile, t.CertKey
	switch auth {
	case config.ClientAuthRequest:
		cfg.ClientAuth, cfg.ClientCAFile = api.RequestClientAuth, t.ClientCAFile
	case config.ClientAuthRequire:
		cfg.ClientAuth, cfg.ClientCAFile = api.RequireClientAuth, t.ClientCAFile
	}
}
