package audit

import (
	"encoding/base64"
	"encoding/xml"
	"net"
	"strconv"
	"strings"
)

// The audit message of DICOM PS3.15 A.5.1, as far as we fill it. Elements stand in the order of its schema.
type auditMessage struct {
	XMLName xml.Name            `xml:"AuditMessage"`
	Event   eventIdentification `xml:"EventIdentification"`
	Active  []activeParticipant `xml:"ActiveParticipant"`
	Source  auditSource         `xml:"AuditSourceIdentification"`
	Objects []participantObject `xml:"ParticipantObjectIdentification"`
}

// coded is a CodedValueType.
type coded struct {
	Code   string `xml:"csd-code,attr"`
	System string `xml:"codeSystemName,attr"`
	Text   string `xml:"originalText,attr"`
}

type eventIdentification struct {
	Action      Action  `xml:"EventActionCode,attr"`
	Time        string  `xml:"EventDateTime,attr"`
	Outcome     Outcome `xml:"EventOutcomeIndicator,attr"`
	ID          coded   `xml:"EventID"`
	Types       []coded `xml:"EventTypeCode"`
	Description string  `xml:"EventOutcomeDescription,omitempty"`
}

type activeParticipant struct {
	UserID      string  `xml:"UserID,attr"`
	Alternative string  `xml:"AlternativeUserID,attr,omitempty"`
	IsRequestor bool    `xml:"UserIsRequestor,attr"`
	Address     string  `xml:"NetworkAccessPointID,attr,omitempty"`
	AddressType string  `xml:"NetworkAccessPointTypeCode,attr,omitempty"`
	Roles       []coded `xml:"RoleIDCode"`
}

type auditSource struct {
	ID   string `xml:"AuditSourceID,attr"`
	Type coded  `xml:"AuditSourceTypeCode"`
}

type participantObject struct {
	ID      string         `xml:"ParticipantObjectID,attr"`
	Type    string         `xml:"ParticipantObjectTypeCode,attr"`
	Role    string         `xml:"ParticipantObjectTypeCodeRole,attr,omitempty"`
	IDType  coded          `xml:"ParticipantObjectIDTypeCode"`
	Name    string         `xml:"ParticipantObjectName"`
	Details []objectDetail `xml:"ParticipantObjectDetail"`
}

type objectDetail struct {
	Type  string `xml:"type,attr"`
	Value string `xml:"value,attr"`
}

// Codes of DICOM PS3.16, context groups 400 (events), 401 (types of events) and 402 (roles).
var (
	applicationActivity = dcm("110100", "Application Activity")
	auditLogUsed        = dcm("110101", "Audit Log Used")
	exported            = dcm("110106", "Export")
	networkEntry        = dcm("110108", "Network Entry")
	queried             = dcm("110112", "Query")
	securityAlert       = dcm("110113", "Security Alert")
	userAuthentication  = dcm("110114", "User Authentication")

	applicationStart   = dcm("110120", "Application Start")
	applicationStop    = dcm("110121", "Application Stop")
	login              = dcm("110122", "Login")
	logout             = dcm("110123", "Logout")
	attached           = dcm("110124", "Attach")
	detached           = dcm("110125", "Detach")
	nodeAuthentication = dcm("110126", "Node Authentication")
	softwareConfigured = dcm("110131", "Software Configuration")
	restrictedFunction = dcm("110132", "Use of Restricted Function")
	recordingStopped   = dcm("110133", "Audit Recording Stopped")
	recordingStarted   = dcm("110134", "Audit Recording Started")
	rolesChanged       = dcm("110136", "Security Roles Changed")
	attributesChanged  = dcm("110137", "User Security Attributes Changed")
	applicationRole    = dcm("110150", "Application")
	sourceRole         = dcm("110153", "Source Role ID")
	applicationServer  = coded{Code: "4", System: "RFC-3881", Text: "Application Server"}
	uriIDType          = coded{Code: "12", System: "RFC-3881", Text: "URI"}
	userIdentifierType = coded{Code: "11", System: "RFC-3881", Text: "User Identifier"}
	securityUserObject = "2"        // system object, RFC 3881 section 5.5.1
	jobRole, userRole  = "20", "11" // job, security user entity: RFC 3881 section 5.5.2
	logRole            = "13"       // security resource
)

func dcm(code, text string) coded { return coded{Code: code, System: "DCM", Text: text} }

// A mapping says which event of DICOM those of ours are whose type begins with prefix.
type mapping struct {
	prefix string
	id     coded
	kind   coded // zero: none but our own type
}

// mappings in the order of search; the first that fits wins. What fits none is an application activity,
// or a query if it only read.
var mappings = []mapping{
	{"audit.start", securityAlert, recordingStarted},
	{"audit.stop", securityAlert, recordingStopped},
	{"audit.query", auditLogUsed, coded{}},
	{"audit.read", auditLogUsed, coded{}},
	{"audit.export", auditLogUsed, coded{}},
	{"audit.", securityAlert, coded{}},
	{"security.", securityAlert, coded{}},
	{"policy.", securityAlert, restrictedFunction},
	{"server.start", applicationActivity, applicationStart},
	{"server.stop", applicationActivity, applicationStop},
	{"config.", securityAlert, softwareConfigured},
	{"auth.certificate", userAuthentication, nodeAuthentication},
	{"auth.logout", userAuthentication, logout},
	{"auth.", userAuthentication, login},
	{"client.login", userAuthentication, login},
	{"client.roles", securityAlert, rolesChanged},
	{"client.list", queried, coded{}},
	{"client.get", queried, coded{}},
	{"client.", securityAlert, attributesChanged},
	{"token.", userAuthentication, login},
	{"ticket.", userAuthentication, login},
	{"store.backup", exported, coded{}},
	{"ws.open", networkEntry, attached},
	{"ws.close", networkEntry, detached},
}

// classify returns the DICOM event of e and whether it is one somebody should look at.
func classify(e *Event) (id coded, kind coded, alert bool) {
	for _, m := range mappings {
		if strings.HasPrefix(e.Type, m.prefix) {
			id, kind = m.id, m.kind
			break
		}
	}
	if id == (coded{}) {
		id = applicationActivity
		if e.Action == Read {
			id = queried
		}
	}
	// A change of rights is on record as DICOM wants it; it alarms nobody unless it went wrong.
	alert = id == securityAlert && (e.Outcome != Success || strings.HasPrefix(e.Type, "security."))
	return id, kind, alert || e.Outcome == MajorFailure
}

// dicomXML returns the audit message of a record. Controls and what else does not print is replaced, the
// rest is escaped, so that no id can add to the message.
func dicomXML(r *record, source string) ([]byte, error) {
	e := &r.Event
	id, kind, _ := classify(e)
	m := auditMessage{
		Event: eventIdentification{
			Action: e.Action, Time: e.Time.UTC().Format(timeLayout), Outcome: e.Outcome, ID: id,
			Description: printable(e.Reason),
		},
		Active: []activeParticipant{requestor(e), {
			UserID: printable(source), Roles: []coded{applicationRole},
		}},
		Source:  auditSource{ID: printable(source), Type: applicationServer},
		Objects: objects(r),
	}
	if kind != (coded{}) {
		m.Event.Types = append(m.Event.Types, kind)
	}
	m.Event.Types = append(m.Event.Types, ours(e.Type))
	return xml.Marshal(m)
}

// ours is a code of our own.
func ours(text string) coded {
	text = printable(text)
	return coded{Code: text, System: "rtcd", Text: text}
}

func requestor(e *Event) activeParticipant {
	p := activeParticipant{
		UserID: printable(e.Actor.ID), Alternative: printable(e.User), IsRequestor: true,
		Roles: []coded{sourceRole, ours(string(e.Actor.Kind))},
	}
	if p.UserID == "" {
		p.UserID = printable(string(e.Actor.Kind))
	}
	if p.UserID == "" {
		p.UserID = "unknown"
	}
	if e.Remote != "" {
		p.Address, p.AddressType = printable(e.Remote), "2"
		if host, _, err := net.SplitHostPort(e.Remote); err == nil {
			p.Address = printable(host)
		}
	}
	return p
}

// objects are what the event is about, and the record's place in the chain, which lets the receiver prove
// later that the log was not written anew.
func objects(r *record) (list []participantObject) {
	e := &r.Event
	add := func(kind, id string) {
		o := participantObject{
			ID: printable(id), Type: securityUserObject, Role: jobRole, IDType: uriIDType, Name: printable(kind),
		}
		if kind == string(Client) {
			o.Role, o.IDType = userRole, userIdentifierType
		}
		list = append(list, o)
	}
	if e.Object.ID != "" {
		add(e.Object.Kind, e.Object.ID)
	}
	if e.CallID != "" && (e.Object.Kind != "call" || e.Object.ID != e.CallID) {
		add("call", e.CallID)
	}
	if e.SessionID != "" && (e.Object.Kind != "session" || e.Object.ID != e.SessionID) {
		add("session", e.SessionID)
	}
	detail := func(key, value string) objectDetail {
		return objectDetail{key, base64.StdEncoding.EncodeToString([]byte(value))}
	}
	details := []objectDetail{
		detail("seq", strconv.FormatUint(r.Seq, 10)), detail("hash", r.sum.String()),
	}
	if e.Remote != "" {
		details = append(details, detail("remote", e.Remote))
	}
	return append(list, participantObject{
		ID: "rtcd-audit-log", Type: securityUserObject, Role: logRole, IDType: uriIDType, Name: "audit log",
		Details: details,
	})
}
