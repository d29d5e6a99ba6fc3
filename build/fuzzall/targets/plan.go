package targets

import (
	"fmt"
	"strings"
)

// planned is a surface that has to have targets, and those that are of it.
type planned struct {
	name, surface string
	ours          []string // by key
	note          string
}

var plan = []planned{
	{"FuzzUDPDatagram", "unauthenticated: datagrams", []string{"service/rtc/netio FuzzUDPDatagram", "service/rtc/engine FuzzUserName"}, ""},
	{"FuzzTCPFrame", "unauthenticated: frames of RFC 4571", []string{"service/rtc/netio FuzzTCPFrame"}, ""},
	{"FuzzHTTPAuth", "unauthenticated: headers, bodies, paths, tokens", []string{"service/auth FuzzAuthorization", "service/auth FuzzTicket", "service/access FuzzAdmit",
		"service/api FuzzHTTP", "service/api FuzzCalls", "service/api FuzzAccount", "service/api FuzzAdmin", "service/api FuzzForwarded"}, ""},
	{"FuzzWSMessage", "backends: messages", []string{"service/api/wire FuzzWSMessage", "service/api/ws FuzzReceive", "service/msgpack FuzzReader"}, ""},
	{"FuzzDCMessage", "end users: messages of the data channel", []string{"service/rtc/channel FuzzDCMessage"}, ""},
	{"FuzzSDPOffer, FuzzSDPAnswer", "end users: descriptions", []string{"service/rtc/engine FuzzSDPOffer", "service/rtc/engine FuzzSDPAnswer", "service/api/wire FuzzDescription"}, ""},
	{"FuzzCandidate", "end users: candidates", []string{"service/api/wire FuzzCandidate"}, ""},
	{"FuzzRTPForward", "end users: RTP, payload descriptors, rewriting", []string{"service/rtc/forward FuzzRTP", "service/rtc/forward FuzzReceive", "service/rtc/codec FuzzVP8",
		"service/rtc/codec FuzzVP9", "service/rtc/codec FuzzH264", "service/rtc/codec FuzzAV1", "service/rtc/codec FuzzDependency", "service/rtc/codec FuzzRED", "service/rtc/rewrite FuzzStream"}, ""},
	{"FuzzRTCP", "end users: RTCP and what it sets off", []string{"service/rtc/forward FuzzRTCP", "service/rtc/forward FuzzFeedback", "service/rtc/estimate FuzzEstimator"}, ""},
	{"FuzzInterceptorChain", "end users: RTP and RTCP interleaved", []string{"service/rtc/forward FuzzFeedback", "service/rtc/forward FuzzSwitcher"}, "the server has no chain of interceptors; these are of what does its work"},
	{"FuzzSCTP", "end users: packets of an association", []string{"service/rtc/engine FuzzSCTP"}, ""},
	{"FuzzSwitcher", "end users: switches between layers", []string{"service/rtc/forward FuzzSwitcher", "service/rtc/allocate FuzzPromises"}, ""},
	{"FuzzSessionOps", "backends: joins, leaves and signals of two tenants", []string{"service/rtc FuzzSessionOps"}, ""},
	{"FuzzConfig", "operators: configuration", []string{"config FuzzConfig", "service/policy FuzzCompile"}, ""},
	{"FuzzStoreOpen", "disk: damaged folders, records, backups", []string{"service/store FuzzStoreOpen", "service/store FuzzRecords", "service/store FuzzFormer", "service/store FuzzBackup", "service/feed FuzzFeedSegment"}, ""},
	{"FuzzClusterMsg, FuzzRelayPacket", "other nodes", nil, "there are no clusters"},
}

// Table is the table of fuzz targets for documents. It fails if the plan names one that is not there.
func Table(all []Target, counts Counts) (string, error) {
	known, planned := make(map[string]Target), make(map[string]bool)
	for _, t := range all {
		known[t.Key()] = t
	}
	var b strings.Builder
	var total int64
	b.WriteString("| Planned | Input | Our targets | Inputs so far |\n|---|---|---|---|\n")
	for _, p := range plan {
		var names []string
		var execs int64
		for _, key := range p.ours {
			t, ok := known[key]
			if !ok {
				return "", fmt.Errorf("there is no fuzz target %s", key)
			}
			names = append(names, fmt.Sprintf("`%s` `%s`", t.Folder, t.Name))
			execs += counts[key]
			if !planned[key] {
				total += counts[key]
			}
			planned[key] = true
		}
		text := strings.Join(names, ", ")
		if p.note != "" {
			text = strings.TrimPrefix(text+"; "+p.note, "; ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.name, p.surface, text, thousands(execs))
	}
	var more []string
	var execs int64
	for _, t := range all {
		if !planned[t.Key()] {
			more = append(more, fmt.Sprintf("`%s` `%s`", t.Folder, t.Name))
			execs += counts[t.Key()]
		}
	}
	fmt.Fprintf(&b, "| besides | | %s | %s |\n", strings.Join(more, ", "), thousands(execs))
	fmt.Fprintf(&b, "| **all** | | %d targets | **%s** |\n", len(all), thousands(total+execs))
	return b.String(), nil
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
