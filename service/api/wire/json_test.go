package wire_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"rtcd/service/api/wire"
)

func TestParseDescription(t *testing.T) {
	for in, want := range map[string]wire.Description{
		`{"type":"offer","sdp":"v=0\r\n"}`:                       {Type: "offer", SDP: "v=0\r\n"},
		` {"sdp":"v=0","type":"answer","extra":[1,{"a":null}]} `: {Type: "answer", SDP: "v=0"},
	} {
		if got, err := wire.ParseDescription([]byte(in)); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]error{
		``: wire.ErrJSON, `x`: wire.ErrJSON, `[]`: wire.ErrJSON, `"offer"`: wire.ErrJSON, `{"type":1}`: wire.ErrJSON,
		`{"type":"offer","sdp":"v=0"} x`: wire.ErrJSON, `{"type":"offer","sdp":["v=0"]}`: wire.ErrJSON,
		`null`: wire.ErrSDPType, `{}`: wire.ErrSDPType, `{"type":"pranswer","sdp":"v=0"}`: wire.ErrSDPType,
		`{"type":"rollback","sdp":""}`: wire.ErrSDPType, `{"type":"Offer","sdp":"v=0"}`: wire.ErrSDPType,
		`{"type":"offer"}`: wire.ErrEmptySDP, `{"type":"offer","sdp":""}`: wire.ErrEmptySDP,
		strings.Repeat("[", 1<<20):   wire.ErrJSON,
		strings.Repeat(" ", 1<<20+1): wire.ErrTooLarge,
	} {
		if got, err := wire.ParseDescription([]byte(in)); !errors.Is(err, want) || got != (wire.Description{}) {
			t.Errorf("%.40s: got %+v, %v; want %v", in, got, err, want)
		}
	}
	fill := func(n int) string {
		const frame = `{"type":"offer","sdp":""}`
		return `{"type":"offer","sdp":"` + strings.Repeat("x", n-len(frame)) + `"}`
	}
	if _, err := wire.ParseDescription([]byte(fill(1 << 20))); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	if _, err := wire.ParseDescription([]byte(fill(1<<20 + 1))); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("more than 1 MiB: %v", err)
	}
}

func TestMarshalDescription(t *testing.T) {
	got, err := wire.Description{Type: "answer", SDP: "v=0\r\na=x:<&>\xff\r\n"}.Marshal()
	want := `{"type":"answer","sdp":"v=0\r\na=x:<&>` + `\ufffd` + `\r\n"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

const hostCandidate = "candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host"

func TestParseCandidate(t *testing.T) {
	full := wire.Candidate{Candidate: hostCandidate, SDPMid: ptr("0"), SDPMLineIndex: ptr(uint16(0)), UsernameFragment: ptr("x")}
	for in, want := range map[string]wire.Candidate{
		`{"candidate":"` + hostCandidate + `","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"x"}`:                                  full,
		`{"type":"candidate","candidate":{"candidate":"` + hostCandidate + `","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"x"}}`: full,
		`{"candidate": {"candidate":"` + hostCandidate + `"},"type":"candidate"}`:                                                      {Candidate: hostCandidate},
		`{"candidate":"","sdpMid":null,"sdpMLineIndex":null,"usernameFragment":null}`:                                                  {},
		`{"candidate":"` + hostCandidate + `","foundation":"1","port":8443}`:                                                           {Candidate: hostCandidate},
		`{"sdpMLineIndex":65535}`: {SDPMLineIndex: ptr(uint16(65535))},
		`{}`:                      {},
		`null`:                    {},
	} {
		if got, err := wire.ParseCandidate([]byte(in)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]error{
		``: wire.ErrJSON, `"x"`: wire.ErrJSON, `[]`: wire.ErrJSON, `{"candidate":1}`: wire.ErrJSON, `{"candidate":[]}`: wire.ErrJSON,
		`{"sdpMLineIndex":-1}`: wire.ErrJSON, `{"sdpMLineIndex":65536}`: wire.ErrJSON, `{"sdpMid":0}`: wire.ErrJSON,
		`{"candidate":{"candidate":"x"}}`:                                 wire.ErrJSON,
		`{"type":"offer","candidate":{"candidate":"x"}}`:                  wire.ErrJSON,
		`{"type":"candidate","candidate":{"candidate":{"candidate":""}}}`: wire.ErrJSON,
		`{"candidate":"` + strings.Repeat("x", 4<<10) + `"}`:              wire.ErrTooLarge,
	} {
		if _, err := wire.ParseCandidate([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%.60s: got %v, want %v", in, err, want)
		}
	}
}

func TestMarshalCandidate(t *testing.T) {
	got, err := wire.MarshalCandidate(wire.Candidate{Candidate: hostCandidate, SDPMid: ptr("0"), SDPMLineIndex: ptr(uint16(0))})
	want := `{"candidate":{"candidate":"` + hostCandidate + `","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null},"type":"candidate"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestParseStreamID(t *testing.T) {
	const key = "screenStreamID"
	for in, want := range map[string]string{
		`{"screenStreamID":"x"}`:             "x",
		`{"other":"y","screenStreamID":"x"}`: "x",
		`{"videoStreamID":"x"}`:              "",
		`{}`:                                 "",
	} {
		if got, err := wire.ParseStreamID([]byte(in), key); err != nil || got != want {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]error{
		``: wire.ErrJSON, `null`: wire.ErrJSON, `[]`: wire.ErrJSON, `"x"`: wire.ErrJSON, `{"screenStreamID":1}`: wire.ErrJSON,
		`{"screenStreamID":null}`: wire.ErrJSON, `{"screenStreamID":"x","n":null}`: wire.ErrJSON,
		`{"screenStreamID":"x","n":1}`: wire.ErrJSON, `{"screenStreamID":{"a":"b"}}`: wire.ErrJSON,
		`{"screenStreamID":"` + strings.Repeat("x", 129) + `"}`: wire.ErrID,
		`{"screenStreamID":"a\nb"}`:                             wire.ErrID,
		strings.Repeat(" ", 4<<10+1):                            wire.ErrTooLarge,
	} {
		got, err := wire.ParseStreamID([]byte(in), key)
		if !errors.Is(err, want) || got != "" {
			t.Errorf("%.40q: got %q, %v; want %v", in, got, err, want)
		}
	}
}

// Errors about JSON go to logs: they show nothing of the input.
func TestErrorsShowNoInput(t *testing.T) {
	const secret = "sEcReT"
	for _, in := range []string{secret, `{"type":"` + secret + `"}`, `{"candidate":{"` + secret + `":1}}`, `{"` + secret + `":{}}`} {
		var errs []error
		_, err := wire.ParseDescription([]byte(in))
		errs = append(errs, err)
		_, err = wire.ParseCandidate([]byte(in))
		errs = append(errs, err)
		_, err = wire.ParseStreamID([]byte(in), "k")
		errs = append(errs, err)
		for _, err := range errs {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", in, err)
			}
		}
	}
}
