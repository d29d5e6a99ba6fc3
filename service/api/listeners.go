package api

import (
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"
)

// A Listener is one socket, or several that share an address, that peers can reach.
type Listener struct {
	Name    string `json:"name"`    // "api", "admin", "media"
	Network string `json:"network"` // "tcp" or "udp"
	Address string `json:"address"` // IP address and port
	TLS     string `json:"tls"`     // "off", "on", "request", "require"; "dtls" for media
	For     string `json:"for"`     // who connects there, and what for
}

// TLSText returns what a listener of cfg has as its TLS.
func (c ServerConfig) TLSText() string {
	switch {
	case c.CertFile == "" && c.KeyFile == "":
		return "off"
	case c.ClientAuth == RequestClientAuth:
		return "request"
	case c.ClientAuth == RequireClientAuth:
		return "require"
	}
	return "on"
}

// A ListenerTable is everything that a server listens on.
type ListenerTable []Listener

// String returns a heading and a line for each listener, in columns.
func (t ListenerTable) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "LISTENER\tNETWORK\tADDRESS\tTLS\tFOR")
	for _, l := range t {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Name, l.Network, l.Address, l.TLS, l.For)
	}
	_ = w.Flush()
	return b.String()
}

// Log writes a line for each listener.
func (t ListenerTable) Log(log *slog.Logger) {
	for _, l := range t {
		log.Info(l.Name+" listening", "network", l.Network, "address", l.Address, "tls", l.TLS, "for", l.For)
	}
}
