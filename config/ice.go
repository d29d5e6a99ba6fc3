package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// An ICEServer is one entry of the list of ICE servers: all STUN or all TURN.
type ICEServer struct {
	URLs       []string `toml:"urls"`
	Username   Secret   `toml:"username,omitempty"`
	Credential Secret   `toml:"credential,omitempty"`
	// CredentialFile is the path of a file with the credential. Load reads it.
	CredentialFile string `toml:"credential_file,omitempty"`
}

// serverFields are the keys of an entry.
var serverFields = []string{"urls", "username", "credential", "credential_file"}

// IsTURN reports whether the entry is a TURN one; else it is a STUN one.
func (s ICEServer) IsTURN() bool {
	return len(s.URLs) > 0 && strings.HasPrefix(strings.ToLower(s.URLs[0]), "turn")
}

// NeedsCredentials reports whether short-lived credentials have to be made for the entry: a TURN
// entry without its own.
func (s ICEServer) NeedsCredentials() bool {
	return s.IsTURN() && s.Username == "" && s.Credential == ""
}

// UseICELite reports whether the server is an ICE-lite agent.
func (r RTC) UseICELite() bool {
	return r.ICELite == ICELiteOn || r.ICELite != ICELiteOff && len(r.ICEServers) == 0
}

// UsableICEServers returns the entries for the server's own ICE agents: every STUN entry, and the
// TURN entries that have credentials or for which some can be made from the static secret.
func (r RTC) UsableICEServers() []ICEServer {
	var usable []ICEServer
	for _, s := range r.ICEServers {
		if r.unusable(s) == "" {
			usable = append(usable, s)
		}
	}
	return usable
}

// unusable says why an entry cannot be used, or "".
func (r RTC) unusable(s ICEServer) string {
	switch {
	case !s.IsTURN():
		return ""
	case s.NeedsCredentials() && r.TURN.StaticAuthSecret == "":
		return "has no credentials of its own and rtc.turn.static_auth_secret is empty"
	case (s.Username == "") != (s.Credential == ""):
		return "has only one of username and credential"
	}
	return ""
}

// DiscoveryAddress returns host:port of the STUN server for finding the addresses that end users are
// told (the first URL of the first STUN entry), or "".
func (r RTC) DiscoveryAddress() string {
	for _, s := range r.ICEServers {
		if s.IsTURN() || len(s.URLs) == 0 {
			continue
		}
		scheme, address, _ := strings.Cut(s.URLs[0], ":")
		if _, _, err := net.SplitHostPort(address); err == nil {
			return address
		}
		port := "3478" // RFC 7064, section 3.2
		if strings.EqualFold(scheme, "stuns") {
			port = "5349"
		}
		return net.JoinHostPort(strings.Trim(address, "[]"), port)
	}
	return ""
}

func jsonList(text string) ([]any, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	var list []any
	if err := dec.Decode(&list); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the list")
	}
	return list, nil
}

// serversFromJSON reads the variable's form: a list of objects, or of strings that make ONE entry
// together. An empty text clears the list, as it does for strings.
func serversFromJSON(text string) ([]ICEServer, Faults) {
	list, err := jsonList(text)
	if err != nil {
		return nil, Faults{{Key: keyICEServers, Value: redacted, Rule: "must be a JSON list of URLs or of objects with urls, username, credential"}}
	}
	if len(list) == 0 {
		return nil, nil
	}
	urls, faults := stringList(list, keyICEServers)
	if faults == nil {
		return []ICEServer{{URLs: urls}}, nil
	}
	for i, entry := range list {
		if _, ok := entry.(map[string]any); !ok {
			return nil, Faults{{Key: fmt.Sprintf("%s[%d]", keyICEServers, i), Value: redacted,
				Rule: "must be an object with urls, username, credential, like the others (a list is of URLs or of objects)"}}
		}
	}
	return serversFromList(list)
}

// serversFromList reads the file's form: each string or table is one entry.
func serversFromList(list []any) ([]ICEServer, Faults) {
	var servers []ICEServer
	var faults Faults
	for i, entry := range list {
		key := fmt.Sprintf("%s[%d]", keyICEServers, i)
		switch entry := entry.(type) {
		case string:
			servers = append(servers, ICEServer{URLs: []string{entry}})
		case map[string]any:
			s, bad := serverFromTable(entry, key)
			servers = append(servers, s)
			faults = append(faults, bad...)
		default:
			faults = append(faults, Fault{Key: key, Value: redacted, Rule: "must be a URL or a table with urls, username, credential"})
		}
	}
	if faults != nil {
		return nil, faults
	}
	return servers, nil
}

func serverFromTable(table map[string]any, key string) (ICEServer, Faults) {
	var s ICEServer
	var faults Faults
	for _, raw := range slices.Sorted(maps.Keys(table)) {
		name, value := strings.ToLower(raw), table[raw]
		switch name {
		case "urls":
			list, ok := anyList(value)
			if !ok {
				faults = append(faults, Fault{Key: key + ".urls", Value: redacted, Rule: "must be a list of strings"})
				continue
			}
			var bad Faults
			s.URLs, bad = stringList(list, key+".urls")
			faults = append(faults, bad...)
		case "username", "credential", "credential_file":
			text, ok := value.(string)
			if !ok && value != nil {
				faults = append(faults, Fault{Key: key + "." + name, Value: redacted, Rule: "must be a string"})
			}
			switch name {
			case "username":
				s.Username = Secret(text)
			case "credential":
				s.Credential = Secret(text)
			default:
				s.CredentialFile = text
			}
		}
	}
	return s, faults
}

func stringList(list []any, key string) ([]string, Faults) {
	texts := make([]string, 0, len(list))
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, Faults{{Key: fmt.Sprintf("%s[%d]", key, i), Value: redacted, Rule: "must be a string"}}
		}
		texts = append(texts, s)
	}
	return texts, nil
}

// checkServers applies the rules for entries: URLs that can be used, of one kind in each entry.
func checkServers(servers []ICEServer) Faults {
	var faults Faults
	for i, s := range servers {
		key := fmt.Sprintf("%s[%d]", keyICEServers, i)
		if len(s.URLs) == 0 {
			faults = append(faults, Fault{Key: key + ".urls", Rule: "must not be empty"})
			continue
		}
		for j, u := range s.URLs {
			urlKey := fmt.Sprintf("%s.urls[%d]", key, j)
			if rule := checkICEURL(u); rule != "" {
				faults = append(faults, Fault{Key: urlKey, Value: shownURL(u), Rule: rule})
			} else if (ICEServer{URLs: s.URLs[j:]}).IsTURN() != s.IsTURN() {
				faults = append(faults, Fault{Key: urlKey, Value: shownURL(u), Rule: "must be of the same kind as the others of the entry, all STUN or all TURN"})
			}
		}
	}
	return faults
}

// shownURL leaves out what somebody may have taken for a place for a password.
func shownURL(u string) string {
	if i := strings.LastIndexByte(u, '@'); i >= 0 {
		u = redacted + u[i:]
	}
	return clip(u)
}

// checkICEURL returns the rule that a STUN or TURN URL breaks (RFC 7064, RFC 7065), or "".
func checkICEURL(u string) string {
	scheme, rest, _ := strings.Cut(u, ":")
	turn := false
	switch strings.ToLower(scheme) {
	case "stun", "stuns":
	case "turn", "turns":
		turn = true
	default:
		return "must start with stun:, stuns:, turn: or turns:"
	}
	hostPort, query, hasQuery := strings.Cut(rest, "?")
	if hasQuery && (!turn || query != "transport=udp" && query != "transport=tcp") {
		return "may have no query but, for TURN, transport=udp or transport=tcp"
	}
	host, port := hostPort, ""
	if i := strings.LastIndexByte(hostPort, ':'); i >= 0 && !strings.HasSuffix(hostPort, "]") {
		host, port = hostPort[:i], hostPort[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "must have a port from 1 to 65535, or none"
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil && addr.Is6() && strings.HasSuffix(host, "]") {
			return ""
		}
		return "must have an IPv6 address in the brackets"
	}
	if !isHostName(host) {
		return "must have a host name or an IP address after the scheme"
	}
	return ""
}

// isHostName reports whether s can be looked up, or is an IPv4 address.
func isHostName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return !strings.Contains(s, ":")
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	// A last label of digits would be a mistyped IPv4 address.
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
