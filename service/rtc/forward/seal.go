package forward

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// sealer encrypts the RTP packets sent to one peer with AES-GCM (RFC 7714). All subscriptions of a
// peer share it, whatever goroutine sends for them: only their sequences are their own. A context of
// pion/srtp for each would be 2 kB more to fetch from memory for one packet in 20 ms.
type sealer struct {
	aead cipher.AEAD
	salt [nonceSize]byte
}

const (
	nonceSize = 12
	sealTag   = 16
)

// Format writes a constant, whatever the verb.
func (*sealer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// sealer returns what encrypts the packets that we send, nil if the profile is none of AES-GCM.
func (k Keys) sealer() (*sealer, error) {
	switch k.Profile {
	case srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm:
	default:
		return nil, nil
	}
	const labelKey, labelSalt = 0, 2 // RFC 3711 section 4.3.2
	key := make([]byte, len(k.LocalKey))
	if err := k.derive(key, labelKey); err != nil {
		return nil, err
	}
	defer clear(key)
	s := new(sealer)
	if err := k.derive(s.salt[:], labelSalt); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("expand session key: %w", err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("make gcm: %w", err)
	}
	return s, nil
}

// derive derives a session key from the local ones (RFC 3711 section 4.3 with a derivation rate of
// 0, RFC 7714 section 11).
func (k Keys) derive(out []byte, label byte) error {
	block, err := aes.NewCipher(k.LocalKey)
	if err != nil {
		return fmt.Errorf("expand master key: %w", err)
	}
	var x, y [aes.BlockSize]byte
	copy(x[:aes.BlockSize-2], k.LocalSalt)
	x[7] ^= label
	for i := 0; len(out) > 0; i++ {
		binary.BigEndian.PutUint16(x[aes.BlockSize-2:], uint16(i))
		block.Encrypt(y[:], x[:])
		out = out[copy(out, y[:]):]
	}
	return nil
}

// seal encrypts plain, a packet without contributing sources, into dst and returns its length; 0 if
// it does not fit.
func (s *sealer) seal(dst, plain []byte, index uint64, nonce *[nonceSize]byte) int {
	head := fixedHeader
	if plain[0]&0x10 != 0 {
		head += 4 + 4*int(binary.BigEndian.Uint16(plain[fixedHeader+2:]))
	}
	if len(plain)+sealTag > cap(dst) {
		return 0
	}
	dst = dst[:head]
	copy(dst, plain)
	nonce[0], nonce[1] = s.salt[0], s.salt[1] // RFC 7714 section 8.1: 00 00, SSRC, roll-overs, number
	binary.BigEndian.PutUint32(nonce[2:], binary.BigEndian.Uint32(s.salt[2:])^binary.BigEndian.Uint32(plain[8:]))
	binary.BigEndian.PutUint32(nonce[6:], binary.BigEndian.Uint32(s.salt[6:])^uint32(index>>16))
	binary.BigEndian.PutUint16(nonce[10:], binary.BigEndian.Uint16(s.salt[10:])^uint16(index))
	return head + len(s.aead.Seal(dst[head:], nonce[:], plain[head:], dst))
}

// sequence follows the numbers sent under one SSRC, to tell their roll-overs as receivers do.
type sequence struct {
	next uint64 // highest index so far, plus 1; 0: nothing was sent
}

// index returns the index of the packet numbered seq (RFC 3711 section 3.3.1). A key is not good
// for more than 1<<48.
func (s *sequence) index(seq uint16) (index uint64, ok bool) {
	if s.next == 0 {
		s.next = uint64(seq) + 1
		return uint64(seq), true
	}
	highest := s.next - 1
	at := int64(highest) + int64(int16(seq-uint16(highest)))
	if at < 0 { // there is nothing before the first round
		at += 1 << 16
	}
	if at >= 1<<48 {
		return 0, false
	}
	s.next = max(s.next, uint64(at)+1)
	return uint64(at), true
}

// scratch is memory for one goroutine to encrypt and decrypt with.
type scratch struct {
	header rtp.Header // for pion/srtp, which parses headers once more
	nonce  [nonceSize]byte
}
