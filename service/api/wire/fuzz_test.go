package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"rtcd/service/api/wire"
)

// FuzzWSMessage compares what we accept with what another decoder makes of it, and what we make
// of it again.
func FuzzWSMessage(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	for _, key := range []string{"aa73657373696f6e5f6964", "a474797065", "a464617461"} {
		for _, typ := range []string{"a3727463", "a3766164"} { // a value, then nil for the same key
			f.Add(unhex(f, typ+" 82 "+key+" a27331 "+key+" c0"))
			f.Add(unhex(f, typ+" 82 "+key+" 03 "+key+" c0"))
		}
	}
	for _, typ := range []string{"a86d6f646572617465", "a46a6f696e", "a573746174 73", "a56572726f72"} { // of two, the last
		f.Add(unhex(f, typ+" 82 a6657863657074 92a161a162 a6657863657074 90"))
		f.Add(unhex(f, typ+" 82 a5746f6b656e a161 a5746f6b656e a0"))
		f.Add(unhex(f, typ+" 82 a4726f6c65 a161 a4726f6c65 01"))
		f.Add(unhex(f, typ+" 82 aa7075626c697368657273 05 aa7075626c697368657273 ff"))
	}
	for _, b := range hostile(f) {
		if len(b) < 256 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		typ := wire.Type(b)
		if m, err := wire.Decode(b); err == nil {
			if m.Type != typ {
				t.Fatalf("type %q, then %q", typ, m.Type)
			}
			if want := reference(t, b); !reflect.DeepEqual(m, want) {
				t.Fatalf("got %+v, the reference %+v", m, want)
			}
			if again, err := wire.Decode(encode(t, m)); err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("got %+v, then %+v, %v", m, again, err)
			}
		} else if m.Type != "" {
			t.Fatalf("an error with type %q", m.Type)
		}
		if m, err := wire.DecodeServer(b); err == nil {
			if want := referenceServer(t, b); !reflect.DeepEqual(m, want) {
				t.Fatalf("from the server: got %+v, the reference %+v", m, want)
			}
			if again, err := wire.DecodeServer(encodeServer(t, m)); err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("from the server: got %+v, then %+v, %v", m, again, err)
			}
		}
	})
}

// reference decodes, with vmihailenco/msgpack, a message that we accepted.
func reference(t *testing.T, b []byte) wire.Message {
	t.Helper()
	d := msgpack.NewDecoder(bytes.NewReader(b))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("the reference refuses: %v", err)
		}
	}
	var m wire.Message
	var err error
	m.Type, err = d.DecodeString()
	must(err)
	switch m.Type {
	case wire.TypeLeave, wire.TypeReconnect:
		var v map[string]string
		must(d.Decode(&v))
		m.SessionID = v["sessionID"]
	case wire.TypeModerate:
		m.Moderate = referenceModerate(t, d)
	case wire.TypeRTC:
		m.Signal = referenceSignal(t, d)
	case wire.TypeJoin:
		n, err := d.DecodeMapLen()
		must(err)
		for range n {
			key, err := d.DecodeString()
			must(err)
			code, err := d.PeekCode()
			must(err)
			text, truth := msgpcode.IsString(code), code == msgpcode.True || code == msgpcode.False
			id := map[string]*string{"callID": &m.Join.CallID, "userID": &m.Join.UserID, "sessionID": &m.Join.SessionID}[key]
			flag := map[string]**bool{"av1Support": &m.Join.AV1Support, "dcSignaling": &m.Join.DCSignaling}[key]
			if key == "token" || key == "role" { // strings, or we would have refused
				s, err := d.DecodeString()
				must(err)
				if key == "token" {
					m.Join.Token = s
				} else {
					m.Join.Role = wire.CallRole(s)
				}
				continue
			}
			switch {
			case id != nil && text:
				*id, err = d.DecodeString()
			case key == "channelID" && text:
				var s string
				s, err = d.DecodeString()
				m.Join.ChannelID = &s
			case flag != nil && truth:
				var v bool
				v, err = d.DecodeBool()
				*flag = &v
			default:
				if id != nil {
					*id = ""
				}
				if flag != nil {
					*flag = nil
				}
				if key == "channelID" {
					m.Join.ChannelID = nil
				}
				err = d.Skip()
			}
			must(err)
		}
	}
	return m
}

func referenceSignal(t *testing.T, d *msgpack.Decoder) wire.Signal {
	t.Helper()
	var v struct {
		GroupID   string `msgpack:"group_id"`
		UserID    string `msgpack:"user_id"`
		SessionID string `msgpack:"session_id"`
		CallID    string `msgpack:"call_id"`
		Type      int64  `msgpack:"type"`
		Data      []byte `msgpack:"data"`
	}
	if err := d.Decode(&v); err != nil {
		t.Fatalf("the reference refuses: %v", err)
	}
	s := wire.Signal{
		GroupID: v.GroupID, UserID: v.UserID, SessionID: v.SessionID, CallID: v.CallID,
		Type: wire.SignalType(v.Type),
	}
	if len(v.Data) > 0 {
		s.Data = v.Data
	}
	return s
}

func referenceModerate(t *testing.T, d *msgpack.Decoder) wire.Moderate {
	t.Helper()
	var v struct {
		CallID    string   `msgpack:"callID"`
		Action    string   `msgpack:"action"`
		SessionID string   `msgpack:"sessionID"`
		StreamID  string   `msgpack:"streamID"`
		Except    []string `msgpack:"except"`
		Active    bool     `msgpack:"active"`
		Until     string   `msgpack:"until"`
	}
	if err := d.Decode(&v); err != nil {
		t.Fatalf("the reference refuses: %v", err)
	}
	m := wire.Moderate{
		CallID: v.CallID, Action: wire.Action(v.Action), SessionID: v.SessionID, StreamID: v.StreamID,
		Active: v.Active, Until: v.Until,
	}
	if len(v.Except) > 0 {
		m.Except = v.Except
	}
	return m
}

// referenceServer is reference for a message of the server.
func referenceServer(t *testing.T, b []byte) wire.ServerMessage {
	t.Helper()
	d := msgpack.NewDecoder(bytes.NewReader(b))
	typ, err := d.DecodeString()
	if err != nil {
		t.Fatalf("the reference refuses: %v", err)
	}
	m := wire.ServerMessage{Type: typ}
	if typ == wire.TypeRTC || typ == wire.TypeVAD {
		m.Signal = referenceSignal(t, d)
		return m
	}
	if typ == wire.TypeStats {
		var v struct {
			CallID       string `msgpack:"callID"`
			Participants int    `msgpack:"participants"`
			Publishers   int    `msgpack:"publishers"`
			Subscribers  int    `msgpack:"subscribers"`
		}
		if err := d.Decode(&v); err != nil {
			t.Fatalf("the reference refuses: %v", err)
		}
		m.Stats = wire.Stats{CallID: v.CallID, Participants: v.Participants, Publishers: v.Publishers, Subscribers: v.Subscribers}
		return m
	}
	var v map[string]string
	if err := d.Decode(&v); err != nil {
		t.Fatalf("the reference refuses: %v", err)
	}
	switch typ {
	case wire.TypeHello:
		m.ClientID, m.ConnID = v["clientID"], v["connID"]
	case wire.TypeError:
		m.Error = wire.Error{SessionID: v["sessionID"], CallID: v["callID"], Reason: v["reason"]}
	default:
		m.SessionID = v["sessionID"]
	}
	return m
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"type":"offer","sdp":"v=0\r\n"}`))
	f.Add([]byte(`{"type":"answer","sdp":"\ud800<&>"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := wire.ParseDescription(b)
		if err != nil {
			return
		}
		if !json.Valid(b) || (d.Type != "offer" && d.Type != "answer") || d.SDP == "" {
			t.Fatalf("accepted %q as %+v", b, d)
		}
		out, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := wire.ParseDescription(out); len(out) <= 1<<20 && (err != nil || again != d) {
			t.Fatalf("got %+v, then %+v, %v", d, again, err)
		}
	})
}

func FuzzCandidate(f *testing.F) {
	f.Add([]byte(`{"candidate":"` + hostCandidate + `","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"x"}`))
	f.Add([]byte(`{"type":"candidate","candidate":{"candidate":"` + hostCandidate + `","sdpMid":"0"}}`))
	f.Add([]byte(`{"candidate":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := wire.ParseCandidate(b)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatalf("accepted %q", b)
		}
		out, err := wire.MarshalCandidate(c)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := wire.ParseCandidate(out); len(out) <= 4<<10 && (err != nil || !reflect.DeepEqual(again, c)) {
			t.Fatalf("got %+v, then %+v, %v", c, again, err)
		}
	})
}

func FuzzStreamID(f *testing.F) {
	f.Add([]byte(`{"screenStreamID":"x"}`))
	f.Add([]byte(`{"screenStreamID":1,"a":"b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := wire.ParseStreamID(b, "screenStreamID")
		if err != nil && id != "" {
			t.Fatalf("an error with id %q", id)
		}
		if err == nil && (wire.CheckID(id) != nil || !json.Valid(b)) {
			t.Fatalf("accepted %q as %q", b, id)
		}
	})
}
