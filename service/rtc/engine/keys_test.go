package engine

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/srtp/v3"
	"github.com/pion/webrtc/v4"
)

// dtlsState is the state of pion's own DTLS connection, which pion does not show.
func dtlsState(t *testing.T, transport *webrtc.DTLSTransport) dtls.State {
	t.Helper()
	field := reflect.ValueOf(transport).Elem().FieldByName("conn")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*dtls.Conn]() {
		t.Fatal("webrtc.DTLSTransport has no field conn of type *dtls.Conn any more: find another way to compare")
	}
	conn := *(**dtls.Conn)(unsafe.Pointer(field.UnsafeAddr()))
	state, ok := conn.ConnectionState()
	if !ok {
		t.Fatal("dtls is not connected")
	}
	return state
}

// TestKeysAreThoseOfPion: keys exported from what the tap sees are those that pion exports, for
// every profile and both hashes of the cipher suites.
func TestKeysAreThoseOfPion(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile dtls.SRTPProtectionProfile
		suite   dtls.CipherSuiteID
		key     int
		salt    int
	}{
		{"AEAD_AES_128_GCM", dtls.SRTP_AEAD_AES_128_GCM, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 16, 12},
		{"AEAD_AES_256_GCM, SHA-384", dtls.SRTP_AEAD_AES_256_GCM, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, 32, 12},
		{"AES128_CM_HMAC_SHA1_80", dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 16, 14},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, newEngine(t, nil))
			if _, err := p.Keys(); !errors.Is(err, ErrNoKeys) {
				t.Errorf("keys before the handshake: %v, want %v", err, ErrNoKeys)
			}
			client := newClient(t, func(s *webrtc.SettingEngine) {
				s.SetSRTPProtectionProfiles(c.profile)
				s.SetDTLSCipherSuites(c.suite)
			})
			connect(deadline(t, 20*time.Second), t, p, client)

			state := dtlsState(t, p.SCTP().Transport())
			want, err := state.ExportKeyingMaterial(exporterLabel, nil, 2*(c.key+c.salt))
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Keys()
			if err != nil {
				t.Fatal(err)
			}
			if got.Profile != srtp.ProtectionProfile(c.profile) {
				t.Errorf("profile %v, want %#x", got.Profile, uint16(c.profile))
			}
			// The client's key, ours, the client's salt, ours (RFC 5764 section 4.2).
			have := bytes.Join([][]byte{got.RemoteKey, got.LocalKey, got.RemoteSalt, got.LocalSalt}, nil)
			if !bytes.Equal(have, want) {
				t.Error("keys are not those that pion exports")
			}
			if len(got.LocalKey) != c.key || len(got.LocalSalt) != c.salt ||
				len(got.RemoteKey) != c.key || len(got.RemoteSalt) != c.salt {
				t.Error("key or salt has the wrong length")
			}
			if _, err := p.Keys(); !errors.Is(err, ErrNoKeys) {
				t.Errorf("the secret was not forgotten: %v, want %v", err, ErrNoKeys)
			}
		})
	}
}

// planted is a tap that has seen a handshake, and the secrets in the forms in which they could show.
func planted(t *testing.T) (*keyTap, []string) {
	t.Helper()
	master := bytes.Repeat([]byte{0xa7}, 48)
	random := bytes.Repeat([]byte{0x5c}, 32)
	tap := new(keyTap)
	line := fmt.Sprintf("CLIENT_RANDOM %x %x\n", random, master)
	if n, err := tap.Write([]byte(line)); n != len(line) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	suite := uint16(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	tap.serverHello(handshake.MessageServerHello{
		CipherSuiteID: &suite,
		Extensions: []extension.Extension{&extension.UseSRTP{
			ProtectionProfiles: []extension.SRTPProtectionProfile{extension.SRTP_AEAD_AES_128_GCM},
		}},
	})
	return tap, forms(master)
}

func forms(secret []byte) []string {
	part := secret[:4]
	return []string{
		string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		strings.Trim(fmt.Sprint(part), "[]"), strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
	}
}

func TestKeysNeverShow(t *testing.T) {
	tap, secrets := planted(t)
	holder := struct{ Tap *keyTap }{tap}
	var texts []string
	format := func(v any) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		texts = append(texts, log.String())
		if b, err := json.Marshal(v); err == nil {
			texts = append(texts, string(b))
		}
	}
	format(tap)
	format(holder)
	keys, err := tap.keys()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]byte{keys.LocalKey, keys.LocalSalt, keys.RemoteKey, keys.RemoteSalt} {
		secrets = append(secrets, forms(key)...)
	}
	format(keys)
	format(&keys)
	format(struct{ K any }{keys})
	for _, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("key material %q shows in %q", secret, text)
			}
		}
	}
}

// TestKeyLog: lines that are not of DTLS 1.2, or broken, leave the tap without keys.
func TestKeyLog(t *testing.T) {
	for _, line := range []string{
		"", "\n", "CLIENT_RANDOM\n", "CLIENT_RANDOM 00\n", "CLIENT_RANDOM zz 00\n", "CLIENT_RANDOM 00 0\n",
		"CLIENT_HANDSHAKE_TRAFFIC_SECRET 00 00\n", "CLIENT_RANDOM 00 00 00\n",
	} {
		tap := new(keyTap)
		tap.serverHello(handshake.MessageServerHello{})
		if n, err := tap.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%q: wrote %d, %v", line, n, err)
		}
		if _, err := tap.keys(); !errors.Is(err, ErrNoKeys) {
			t.Errorf("%q: %v, want %v", line, err, ErrNoKeys)
		}
	}
}

// TestKeysWithoutProfile: an endpoint that does not do SRTP gives an error, not keys of no length.
func TestKeysWithoutProfile(t *testing.T) {
	tap := new(keyTap)
	_, _ = tap.Write(fmt.Appendf(nil, "CLIENT_RANDOM %064x %096x\n", 1, 2))
	tap.serverHello(handshake.MessageServerHello{})
	if keys, err := tap.keys(); err == nil {
		t.Errorf("got keys %v, want an error", keys)
	}
}
