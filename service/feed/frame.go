package feed

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A file of the log is a row of frames. All numbers are little endian.
//
//	4 bytes  frameMark
//	4 bytes  length of what follows the checksum
//	4 bytes  CRC-32C of that
//	1 byte   kind
//	8 bytes  number of the event; of a head the number of the first event of the file
//	         JSON: a head, a callState, or an Event as it is delivered
const (
	frameHead = 12
	frameMin  = 9       // kind and number
	frameMax  = 1 << 20 // bytes of kind, number and JSON
)

var frameMark = []byte{0xfe, 'e', 'v', '1'}

// Kinds of frames. A file has a head, the state of the calls that run as it begins, and events.
const (
	kindHead  = 'h'
	kindState = 's'
	kindEvent = 'e'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is the error of bytes that are no frame.
var errDamaged = errors.New("not a frame")

// A frame is one record of a file.
type frame struct {
	kind byte
	seq  uint64
	body []byte
}

func (f frame) size() int64 { return frameHead + frameMin + int64(len(f.body)) }

func appendFrame(buf []byte, f frame) []byte {
	buf = append(buf, frameMark...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(frameMin+len(f.body)))
	at := len(buf)
	buf = append(buf, 0, 0, 0, 0, f.kind)
	buf = binary.LittleEndian.AppendUint64(buf, f.seq)
	buf = append(buf, f.body...)
	binary.LittleEndian.PutUint32(buf[at:], crc32.Checksum(buf[at+4:], castagnoli))
	return buf
}

// frameLen returns the length of the frame that a head announces, without the head.
func frameLen(head []byte) (int, bool) {
	if !bytes.HasPrefix(head, frameMark) {
		return 0, false
	}
	n := binary.LittleEndian.Uint32(head[4:])
	return int(n), n >= frameMin && n <= frameMax
}

// parseFrame checks what follows a head.
func parseFrame(head, rest []byte) (frame, bool) {
	if crc32.Checksum(rest, castagnoli) != binary.LittleEndian.Uint32(head[8:]) {
		return frame{}, false
	}
	f := frame{kind: rest[0], seq: binary.LittleEndian.Uint64(rest[1:]), body: rest[frameMin:]}
	return f, f.kind == kindHead || f.kind == kindState || f.kind == kindEvent
}

// A frameReader reads frames until the first that is none, or is not whole.
type frameReader struct {
	in   *bufio.Reader
	good int64 // bytes up to the end of the last frame
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(r, 64<<10)}
}

// next returns a frame that is the caller's. io.EOF is the end behind a whole frame.
func (r *frameReader) next() (frame, error) {
	var head [frameHead]byte
	if n, err := io.ReadFull(r.in, head[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return frame{}, io.EOF
		}
		return frame{}, readFault(err)
	}
	n, ok := frameLen(head[:])
	if !ok {
		return frame{}, errDamaged
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r.in, rest); err != nil {
		return frame{}, readFault(err)
	}
	f, ok := parseFrame(head[:], rest)
	if !ok {
		return frame{}, errDamaged
	}
	r.good += f.size()
	return f, nil
}

// readFault tells an unfinished frame from a disk that cannot be read.
func readFault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errDamaged
	}
	return err
}

// lastNumber returns the highest number of the events that stand whole in bytes behind damage.
func lastNumber(data []byte) (seq uint64) {
	for {
		i := bytes.Index(data, frameMark)
		if i < 0 || len(data)-i < frameHead {
			return seq
		}
		data = data[i:]
		n, ok := frameLen(data)
		if ok && len(data)-frameHead >= n {
			if f, ok := parseFrame(data[:frameHead], data[frameHead:frameHead+n]); ok {
				if f.kind == kindEvent {
					seq = max(seq, f.seq)
				}
				data = data[frameHead+n:]
				continue
			}
		}
		data = data[1:]
	}
}
