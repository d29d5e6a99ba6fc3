package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// plainPacket returns a packet of n bytes of payload, with or without an extension.
func plainPacket(seq uint16, ssrc uint32, extended bool, n int) []byte {
	b := []byte{0x80, 111}
	b = binary.BigEndian.AppendUint16(b, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(seq)*960)
	b = binary.BigEndian.AppendUint32(b, ssrc)
	if extended {
		b[0] |= 0x10
		b = append(b, 0xbe, 0xde, 0, 2, 0x31, 1, 2, 0x40, 9, 0, 0, 0)
	}
	for i := range n {
		b = append(b, byte(i)^byte(seq))
	}
	return b
}

// The keys, nonces and roll-overs are those of pion/srtp, over a walk that goes round many times,
// with late packets and leaps, from any beginning.
func TestSealerEncryptsAsPionDoes(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm} {
		t.Run(profile.String(), func(t *testing.T) {
			keys := testKeys(profile, 3)
			random := rand.New(rand.NewPCG(1, 2))
			for start := range 40 {
				s, err := keys.sealer()
				if err != nil {
					t.Fatal(err)
				}
				pion, err := keys.outbound()
				if err != nil {
					t.Fatal(err)
				}
				var numbers sequence
				var nonce [nonceSize]byte
				seq, ssrc := uint16(random.Uint32()), random.Uint32()
				if start < 4 { // about the ends of the first round
					seq = []uint16{0, 1, 1<<16 - 1, 1 << 15}[start]
				}
				slot, other := make([]byte, 0, 1600), make([]byte, 0, 1600)
				var h rtp.Header
				for i := range 400 {
					at := seq
					if i > 0 && random.IntN(8) == 0 {
						at -= uint16(random.IntN(100)) // late
					}
					plain := plainPacket(at, ssrc, i%2 == 0, random.IntN(1200))
					index, ok := numbers.index(at)
					if !ok {
						t.Fatalf("packet %d: no index", at)
					}
					n := s.seal(slot, plain, index, &nonce)
					want, err := pion.EncryptRTP(other, plain, &h)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(slot[:n], want) {
						t.Fatalf("start %d, step %d: packet %d of index %d differs from pion's", start, i, at, index)
					}
					seq += uint16(1 + random.IntN(2000))
				}
				if numbers.next < 3<<16 {
					t.Fatalf("went round %d times only", numbers.next>>16)
				}
			}
		})
	}
}

func TestSealerIsForGCMAlone(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{srtp.ProtectionProfileAes128CmHmacSha1_80, srtp.ProtectionProfileAes256CmHmacSha1_80} {
		if s, err := testKeys(profile, 1).sealer(); s != nil || err != nil {
			t.Errorf("%s: %v, %v", profile, s, err)
		}
	}
}

func TestSealerRefuses(t *testing.T) {
	s, err := testKeys(gcm, 1).sealer()
	if err != nil {
		t.Fatal(err)
	}
	var nonce [nonceSize]byte
	plain := plainPacket(1, 2, false, 100)
	if n := s.seal(make([]byte, 0, len(plain)+sealTag-1), plain, 1, &nonce); n != 0 {
		t.Errorf("%d bytes in a slot that is one too short", n)
	}
	if n := s.seal(make([]byte, 0, len(plain)+sealTag), plain, 1, &nonce); n != len(plain)+sealTag {
		t.Errorf("%d bytes, want %d", n, len(plain)+sealTag)
	}
	last := sequence{next: 1<<48 - 1}
	if _, ok := last.index(1<<16 - 1); !ok {
		t.Error("the last index of a key is refused")
	}
	if index, ok := last.index(0); ok {
		t.Errorf("index %d is beyond what one key is good for", index)
	}
}

func TestSealerShowsNothing(t *testing.T) {
	s, err := testKeys(gcm, 1).sealer()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, s); !strings.Contains(got, redacted) || len(got) != len(redacted) {
			t.Errorf("%s: %q", verb, got)
		}
	}
}
