package engine

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/prf"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/forward"
)

// ErrNoKeys: the DTLS handshake has not finished, or not with the server as DTLS server.
var ErrNoKeys = errors.New("no srtp keys yet")

// exporterLabel is the label of RFC 5764 section 4.2.
const exporterLabel = "EXTRACTOR-dtls_srtp"

// keyTap takes from a DTLS 1.2 handshake, in which we are the server, what RFC 5705 needs to
// export the SRTP keys. It is the io.Writer of the key log and the hook of the server hello; the
// key material stays in it and nothing formats it.
type keyTap struct {
	mu           sync.Mutex
	master       []byte
	clientRandom []byte
	serverRandom []byte
	suite        uint16
	profile      extension.SRTPProtectionProfile
}

// Format writes a constant, whatever the verb.
func (*keyTap) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[keys]") }

// Write takes one line of the key log: CLIENT_RANDOM, the random and the master secret in hex.
func (t *keyTap) Write(line []byte) (int, error) {
	fields := bytes.Fields(line)
	if len(fields) != 3 || string(fields[0]) != "CLIENT_RANDOM" {
		return len(line), nil // another version of DTLS; Keys will say that there are none
	}
	random, errR := hex.AppendDecode(nil, fields[1])
	master, errM := hex.AppendDecode(nil, fields[2])
	if errR != nil || errM != nil {
		return len(line), nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clientRandom, t.master = random, master
	return len(line), nil
}

// serverHello notes what our server hello chose, and passes it on unchanged.
func (t *keyTap) serverHello(m handshake.MessageServerHello) handshake.Message {
	random := m.Random.MarshalFixed()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serverRandom = append(t.serverRandom[:0], random[:]...)
	if m.CipherSuiteID != nil {
		t.suite = *m.CipherSuiteID
	}
	for _, e := range m.Extensions {
		if use, ok := e.(*extension.UseSRTP); ok && len(use.ProtectionProfiles) > 0 {
			t.profile = use.ProtectionProfiles[0]
		}
	}
	return &m
}

// keys exports the SRTP keys and forgets the secret they come from.
func (t *keyTap) keys() (forward.Keys, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master == nil || t.serverRandom == nil {
		return forward.Keys{}, ErrNoKeys
	}
	profile := srtp.ProtectionProfile(t.profile)
	keyLen, err := profile.KeyLen()
	if err != nil {
		return forward.Keys{}, fmt.Errorf("srtp profile %#x: %w", uint16(t.profile), err)
	}
	saltLen, err := profile.SaltLen()
	if err != nil {
		return forward.Keys{}, fmt.Errorf("srtp profile %#x: %w", uint16(t.profile), err)
	}
	seed := append([]byte(exporterLabel), t.clientRandom...)
	seed = append(seed, t.serverRandom...)
	material, err := prf.PHash(t.master, seed, 2*(keyLen+saltLen), suiteHash(t.suite))
	if err != nil {
		return forward.Keys{}, fmt.Errorf("export srtp keys: %w", err)
	}
	clear(t.master)
	t.master = nil

	// client key | server key | client salt | server salt; we are the server.
	next := func(n int) []byte {
		part := material[:n:n]
		material = material[n:]
		return part
	}
	k := forward.Keys{Profile: profile}
	k.RemoteKey, k.LocalKey = next(keyLen), next(keyLen)
	k.RemoteSalt, k.LocalSalt = next(saltLen), next(saltLen)
	return k, nil
}

// suiteHash is the hash of a cipher suite's PRF (RFC 5246 section 5, RFC 5289).
func suiteHash(id uint16) prf.HashFunc {
	switch dtls.CipherSuiteID(id) {
	case dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return func() hash.Hash { return sha512.New384() }
	default:
		return sha256.New
	}
}
