package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Limits of the JSON inside signalling.
const (
	maxDescription = 1 << 20
	maxCandidate   = 4 << 10
	maxStreamID    = 4 << 10
)

// Errors of the JSON inside signalling.
var (
	ErrJSON     = errors.New("not the JSON expected")
	ErrSDPType  = errors.New("sdp type is neither offer nor answer")
	ErrEmptySDP = errors.New("sdp is empty")
)

// Description is a session description as it is signalled (RFC 9429 section 4.1).
type Description struct {
	Type string `json:"type"` // offer or answer
	SDP  string `json:"sdp"`
}

// ParseDescription decodes an offer or an answer of at most 1 MiB.
func ParseDescription(data []byte) (Description, error) {
	var d Description
	if err := parse(data, maxDescription, &d); err != nil {
		return Description{}, err
	}
	switch {
	case d.Type != "offer" && d.Type != "answer":
		return Description{}, ErrSDPType
	case d.SDP == "":
		return Description{}, ErrEmptySDP
	}
	return d, nil
}

// Marshal returns the JSON of a description.
func (d Description) Marshal() ([]byte, error) { return marshal(d) }

// Candidate is an ICE candidate as browsers have it, an RTCIceCandidateInit. An empty Candidate
// says that there are no more.
type Candidate struct {
	Candidate        string  `json:"candidate"`
	SDPMid           *string `json:"sdpMid"`
	SDPMLineIndex    *uint16 `json:"sdpMLineIndex"`
	UsernameFragment *string `json:"usernameFragment"`
}

// wrapped is the form in which the server sends a candidate.
type wrapped struct {
	Candidate Candidate `json:"candidate"`
	Type      string    `json:"type"`
}

// ParseCandidate decodes a candidate of at most 4 KiB, as browsers have it or wrapped as the
// server sends it.
func ParseCandidate(data []byte) (Candidate, error) {
	var probe struct {
		Candidate json.RawMessage `json:"candidate"`
		Type      string          `json:"type"`
	}
	if err := parse(data, maxCandidate, &probe); err != nil {
		return Candidate{}, err
	}
	var c Candidate
	if bytes.HasPrefix(probe.Candidate, []byte("{")) {
		if probe.Type != "candidate" {
			return Candidate{}, ErrJSON
		}
		data = probe.Candidate
	}
	if err := parse(data, maxCandidate, &c); err != nil {
		return Candidate{}, err
	}
	return c, nil
}

// MarshalCandidate returns the JSON in which the server tells a candidate.
func MarshalCandidate(c Candidate) ([]byte, error) {
	return marshal(wrapped{Candidate: c, Type: "candidate"})
}

// ParseStreamID returns the string under key of a JSON object whose values are all strings, empty
// if the key is missing.
func ParseStreamID(data []byte, key string) (string, error) {
	var m map[string]*string
	if err := parse(data, maxStreamID, &m); err != nil {
		return "", err
	}
	if m == nil {
		return "", ErrJSON
	}
	for _, v := range m {
		if v == nil { // null is no string
			return "", ErrJSON
		}
	}
	var id string
	if v, ok := m[key]; ok {
		id = *v
	}
	if err := CheckID(id); err != nil {
		return "", err
	}
	return id, nil
}

// parse decodes JSON of at most limit bytes. The error shows nothing of the input.
func parse(data []byte, limit int, v any) error {
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes of json", ErrTooLarge, len(data))
	}
	if json.Unmarshal(data, v) != nil {
		return ErrJSON
	}
	return nil
}

// marshal is json.Marshal without the escaping that is for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
