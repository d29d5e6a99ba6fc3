package engine

import (
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/pion/sctp"
)

// FuzzSCTP sends packets into an association, whole or in part, with the checksum put right: what an end
// user can do once DTLS stands. The association is taken down after each input, and its end is awaited.
func FuzzSCTP(f *testing.F) {
	chunk := func(kind, flags byte, body ...byte) []byte {
		b := []byte{kind, flags, 0, 0}
		binary.BigEndian.PutUint16(b[2:], uint16(4+len(body)))
		b = append(b, body...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	first := []byte{0, 0, 0, 1, 0, 16, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1} // tag, window, streams, TSN
	data := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 50, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	f.Add(chunk(1, 0, first...), []byte{})
	f.Add(chunk(1, 0, first...), chunk(10, 0, make([]byte, 64)...))
	f.Add(chunk(2, 0, first...), chunk(0, 3, data...))
	f.Add(chunk(0, 3, data...), chunk(3, 0, make([]byte, 12)...))
	f.Add(chunk(130, 0, 0, 13, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1), chunk(192, 0, 0, 0, 0, 9))
	f.Add(chunk(6, 0), chunk(7, 0, 0, 0, 0, 1))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		ours, theirs := net.Pipe()
		made := make(chan *sctp.Association, 1)
		go func() {
			a, err := sctp.ServerWithOptions(sctp.WithNetConn(ours), sctp.WithMaxReceiveBufferSize(256<<10),
				sctp.WithLoggerFactory(newLoggerFactory(slog.New(slog.DiscardHandler))))
			if err != nil {
				a = nil
			}
			made <- a
		}()
		drained := make(chan struct{})
		go func() { // what it says
			defer close(drained)
			for b := make([]byte, 4096); ; {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		}()
		for _, chunks := range [][]byte{one, two} {
			packet := append([]byte{0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0}, chunks[:min(len(chunks), 1200)]...)
			binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
			_ = theirs.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := theirs.Write(packet); err != nil {
				break // it has ended
			}
		}
		_ = theirs.Close()
		_ = ours.Close()
		select {
		case a := <-made:
			if a != nil {
				_ = a.Close()
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the association does not end with its connection")
		}
		<-drained
	})
}
