package audit_test

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rtcd/service/audit"
)

var update = flag.Bool("update", false, "write the golden files")

// goldenEvents are one event of each row of the mapping.
func goldenEvents() map[string]audit.Event {
	base := audit.Event{
		Seq: 7, Time: time.Date(2026, 11, 24, 17, 20, 51, 123e6, time.UTC),
		Actor: audit.Actor{Kind: audit.Client, ID: "chat"}, Remote: "192.0.2.7:4711", Action: audit.Execute,
	}
	events := map[string]audit.Event{}
	for _, kind := range []string{
		"audit.start", "audit.stop", "audit.query", "audit.damaged", "security.lockout", "policy.denied", "server.start", "server.stop",
		"config.reload", "auth.certificate", "auth.failure", "client.login", "client.register", "client.roles", "client.list", "token.issue",
		"ticket.issue", "store.backup", "ws.open", "ws.close", "ws.join", "call.moderate",
	} {
		e := base
		e.Type = kind
		events[kind] = e
	}
	denied := base
	denied.Type, denied.Action, denied.Outcome, denied.Reason = "call.get", audit.Read, audit.SeriousFailure, "forbidden"
	denied.Object, denied.CallID, denied.SessionID, denied.User = audit.Object{Kind: "call", ID: "c1"}, "c1", "s1", "9f86d081884c7d65"
	events["denied"] = denied
	nasty := denied
	nasty.Actor.ID = "a\"><x/>\r\n\x1b[31m\u2028\u202e&amp;\x00ü"
	nasty.Object.ID, nasty.Reason, nasty.Remote = nasty.Actor.ID, nasty.Actor.ID, "[2001:db8::1%eth0]:5"
	events["nasty"] = nasty
	guest := base
	guest.Actor, guest.Type, guest.Outcome = audit.Actor{Kind: audit.Guest}, "auth.failure", audit.MinorFailure
	events["guest"] = guest
	return events
}

// TestGolden shows CR-15: the message of each kind of event is the one in testdata, a strict reader of RFC 5424
// takes it, and it is a valid audit message of DICOM PS3.15 A.5.
func TestGolden(t *testing.T) {
	for name, e := range goldenEvents() {
		text, err := audit.Message(e, "rtcd.example.com")
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseSyslog(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := validAuditMessage(m.body); err != nil {
			t.Errorf("%s: %v in %s", name, err, m.body)
		}
		// The process differs from run to run.
		text = bytes.Replace(text, []byte(" rtcd "+m.process+" "), []byte(" rtcd 1 "), 1)
		path := filepath.Join("testdata", name+".syslog")
		if *update {
			write(t, path, append(text, '\n'))
		}
		if want := read(t, path); !bytes.Equal(append(text, '\n'), want) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, text, want)
		}
	}
}

// TestSyslogHeader shows CR-15: priority 85, 84 for alerts, the message id, and the time to the millisecond in UTC.
func TestSyslogHeader(t *testing.T) {
	for name, want := range map[string]int{
		"ws.join": 85, "client.login": 85, "audit.start": 85, "audit.damaged": 84, "security.lockout": 84, "denied": 85,
	} {
		e := goldenEvents()[name]
		if name == "audit.damaged" {
			e.Outcome = audit.SeriousFailure
		}
		text, err := audit.Message(e, "host with spaces")
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseSyslog(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m.priority != want || m.id != "DICOM+RFC3881" || m.app != "rtcd" || m.host != "host_with_spaces" || m.time != "2026-11-24T17:20:51.123Z" {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}

// TestEscaped shows CR-15: what an id holds stays text, and what does not print is replaced.
func TestEscaped(t *testing.T) {
	e := goldenEvents()["nasty"]
	text, err := audit.Message(e, "h")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsFunc(text, func(r rune) bool {
		return r < ' ' || r == 0x7f || strings.ContainsRune("\u2028\u202e\u0085", r)
	}) {
		t.Errorf("not printable: %q", text)
	}
	m, err := parseSyslog(text)
	if err != nil {
		t.Fatal(err)
	}
	root, err := parseXML(m.body)
	if err != nil {
		t.Fatal(err)
	}
	want := "a\"><x/>\uFFFD\uFFFD\uFFFD[31m\uFFFD\uFFFD&amp;\uFFFDü"
	if got := root.children[1].attr["UserID"]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := root.children[1].attr["NetworkAccessPointID"]; got != "2001:db8::1%eth0" {
		t.Errorf("address: %q", got)
	}
}

// A syslogMessage is what parseSyslog found.
type syslogMessage struct {
	priority                     int
	time, host, app, process, id string
	body                         []byte
}

var header = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) - `)

// parseSyslog reads a message of RFC 5424 strictly: the header's grammar, no structured data, a message in UTF-8
// that a byte order mark announces.
func parseSyslog(text []byte) (syslogMessage, error) {
	m := header.FindSubmatch(text)
	if m == nil {
		return syslogMessage{}, fmt.Errorf("header: %.100q", text)
	}
	body, marked := bytes.CutPrefix(text[len(m[0]):], []byte("\uFEFF"))
	priority, _ := strconv.Atoi(string(m[1]))
	switch {
	case !marked:
		return syslogMessage{}, errors.New("no byte order mark")
	case !utf8.Valid(body):
		return syslogMessage{}, errors.New("not UTF-8")
	case priority > 191:
		return syslogMessage{}, errors.New("priority")
	}
	if _, err := time.Parse(time.RFC3339Nano, string(m[2])); err != nil {
		return syslogMessage{}, err
	}
	return syslogMessage{priority, string(m[2]), string(m[3]), string(m[4]), string(m[5]), string(m[6]), body}, nil
}

// An element is one of XML.
type element struct {
	name     string
	attr     map[string]string
	text     string
	children []*element
}

func parseXML(text []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(text))
	var root *element
	var path []*element
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				if _, twice := e.attr[a.Name.Local]; twice {
					return nil, fmt.Errorf("attribute %s twice", a.Name.Local)
				}
				e.attr[a.Name.Local] = a.Value
			}
			if len(path) == 0 {
				root = e
			} else {
				top := path[len(path)-1]
				top.children = append(top.children, e)
			}
			path = append(path, e)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			path[len(path)-1].text += string(token)
		default:
			return nil, fmt.Errorf("%T", token)
		}
	}
}

// A rule is what the schema of PS3.15 A.5.1 says of one element: its attributes ("?" behind the name: may be
// missing), with the values they take, and its children in order ("?", "*", "+" as usual).
type rule struct {
	attrs    map[string]string // name → pattern
	children []string
	text     bool
}

func between(from, to int) string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return strings.Join(all, "|")
}

const anything = `(?s).*`

var codedValue = rule{attrs: map[string]string{"csd-code": ".+", "codeSystemName": ".+", "displayName?": anything, "originalText": ".+"}}

var schema = map[string]rule{
	"AuditMessage": {children: []string{"EventIdentification", "ActiveParticipant+", "AuditSourceIdentification", "ParticipantObjectIdentification*"}},
	"EventIdentification": {
		attrs: map[string]string{
			"EventActionCode?": "C|R|U|D|E", "EventOutcomeIndicator": "0|4|8|12",
			"EventDateTime": `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`,
		},
		children: []string{"EventID", "EventTypeCode*", "EventOutcomeDescription?"},
	},
	"EventID": codedValue, "EventTypeCode": codedValue, "RoleIDCode": codedValue, "ParticipantObjectIDTypeCode": codedValue,
	"EventOutcomeDescription": {text: true},
	"ActiveParticipant": {
		attrs: map[string]string{
			"UserID": ".+", "AlternativeUserID?": anything, "UserName?": anything, "UserIsRequestor": "true|false|0|1",
			"NetworkAccessPointID?": ".+", "NetworkAccessPointTypeCode?": between(1, 5),
		},
		children: []string{"RoleIDCode*", "MediaIdentifier?"},
	},
	"AuditSourceIdentification": {
		attrs:    map[string]string{"AuditEnterpriseSiteID?": anything, "AuditSourceID": ".+"},
		children: []string{"AuditSourceTypeCode*"},
	},
	"AuditSourceTypeCode": {attrs: map[string]string{"csd-code": between(1, 9), "codeSystemName?": ".+", "displayName?": anything, "originalText?": anything}},
	"ParticipantObjectIdentification": {
		attrs: map[string]string{
			"ParticipantObjectID": ".+", "ParticipantObjectTypeCode?": between(1, 4), "ParticipantObjectTypeCodeRole?": between(1, 26),
			"ParticipantObjectDataLifeCycle?": between(1, 15), "ParticipantObjectSensitivity?": anything,
		},
		children: []string{"ParticipantObjectIDTypeCode", "ParticipantObjectName", "ParticipantObjectDetail*", "ParticipantObjectDescription*"},
	},
	"ParticipantObjectName":   {text: true},
	"ParticipantObjectDetail": {attrs: map[string]string{"type": ".+", "value": `[A-Za-z0-9+/]+={0,2}`}},
}

// validAuditMessage checks a message by the rules of PS3.15 A.5.1.
func validAuditMessage(text []byte) error {
	root, err := parseXML(text)
	if err != nil {
		return err
	}
	if root == nil || root.name != "AuditMessage" {
		return errors.New("no AuditMessage")
	}
	return root.valid()
}

func (e *element) valid() error {
	r, known := schema[e.name]
	if !known {
		return fmt.Errorf("element %s", e.name)
	}
	if !r.text && strings.TrimSpace(e.text) != "" {
		return fmt.Errorf("text in %s", e.name)
	}
	allowed := map[string]bool{}
	for name, pattern := range r.attrs {
		name, optional := strings.CutSuffix(name, "?")
		allowed[name] = true
		value, there := e.attr[name]
		if !there && !optional || there && !regexp.MustCompile("^("+pattern+")$").MatchString(value) {
			return fmt.Errorf("%s: attribute %s is %q", e.name, name, value)
		}
	}
	for name := range e.attr {
		if !allowed[name] {
			return fmt.Errorf("%s: attribute %s", e.name, name)
		}
	}
	if value, there := e.attr["value"]; there {
		if _, err := base64.StdEncoding.DecodeString(value); err != nil {
			return err
		}
	}
	rest := e.children
	for _, want := range r.children {
		name := strings.TrimRight(want, "?*+")
		n := slices.IndexFunc(rest, func(c *element) bool { return c.name != name })
		if n < 0 {
			n = len(rest)
		}
		switch mark := want[len(name):]; {
		case mark == "" && n != 1, mark == "?" && n > 1, mark == "+" && n < 1:
			return fmt.Errorf("%s: %d of %s", e.name, n, name)
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%s: %s out of place", e.name, rest[0].name)
	}
	for _, c := range e.children {
		if err := c.valid(); err != nil {
			return err
		}
	}
	return nil
}

// TestSchemaCheck shows that the check of the messages refuses what the schema refuses.
func TestSchemaCheck(t *testing.T) {
	text, err := audit.Message(goldenEvents()["denied"], "h")
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseSyslog(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := validAuditMessage(m.body); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`EventOutcomeIndicator="8"`, `EventOutcomeIndicator="9"`}, {`UserIsRequestor="true"`, ``}, {`EventActionCode="R"`, `EventActionCode="Q"`},
		{`<AuditSourceIdentification`, `<Source`}, {`csd-code=`, `code=`}, {`.123Z`, ``}, {`UserID="chat"`, `UserID="chat" Extra="1"`},
	} {
		broken := bytes.Replace(m.body, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(broken, m.body) || validAuditMessage(broken) == nil {
			t.Errorf("%v was taken", change)
		}
	}
}
