package forward

import (
	"errors"
	"fmt"
	"io"

	"github.com/pion/srtp/v3"
)

// Keys are the SRTP master keys and salts of one DTLS association (RFC 5764 section 4.2). No way
// of formatting them shows them.
type Keys struct {
	Profile    srtp.ProtectionProfile
	LocalKey   []byte // of what we send
	LocalSalt  []byte
	RemoteKey  []byte // of what the endpoint sends
	RemoteSalt []byte
}

const redacted = "[keys]"

// String returns a constant.
func (Keys) String() string { return redacted }

// GoString returns a constant.
func (Keys) GoString() string { return redacted }

// Format writes a constant, whatever the verb.
func (Keys) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalText returns a constant. JSON and log handlers use it.
func (Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// errProfile is wrapped for profiles that are not for use: those without encryption and those
// with a tag of 4 bytes.
var errProfile = errors.New("protection profile not supported")

const (
	replayRTP  = 512 // packets of an SSRC that may be late (RFC 3711 section 3.3.2)
	replayRTCP = 64
)

// check refuses profiles that are not for use. align relies on tags of 8 bytes and more.
func (k Keys) check() error {
	switch k.Profile {
	case srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm,
		srtp.ProtectionProfileAes128CmHmacSha1_80, srtp.ProtectionProfileAes256CmHmacSha1_80:
		return nil
	}
	return fmt.Errorf("%w: %s", errProfile, k.Profile)
}

// tag returns the length of the tag at the end of a packet.
func (k Keys) tag() int {
	switch k.Profile {
	case srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm:
		return 16
	}
	return 10
}

// inbound returns the context that decrypts what the endpoint sends.
func (k Keys) inbound() (*srtp.Context, error) {
	return srtp.CreateContext(k.RemoteKey, k.RemoteSalt, k.Profile,
		srtp.SRTPReplayProtection(replayRTP), srtp.SRTCPReplayProtection(replayRTCP))
}

// outbound returns a context that encrypts what we send. No two of them may encrypt packets of
// one SSRC: the nonces would repeat.
func (k Keys) outbound() (*srtp.Context, error) {
	return srtp.CreateContext(k.LocalKey, k.LocalSalt, k.Profile)
}

// clone returns a copy that shares no memory with k.
func (k Keys) clone() Keys {
	k.LocalKey = append([]byte(nil), k.LocalKey...)
	k.LocalSalt = append([]byte(nil), k.LocalSalt...)
	k.RemoteKey = append([]byte(nil), k.RemoteKey...)
	k.RemoteSalt = append([]byte(nil), k.RemoteSalt...)
	return k
}

// wipe overwrites the keys.
func (k *Keys) wipe() {
	clear(k.LocalKey)
	clear(k.LocalSalt)
	clear(k.RemoteKey)
	clear(k.RemoteSalt)
	*k = Keys{}
}
