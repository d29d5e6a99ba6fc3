package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"slices"
)

// blockBytes is the size of the pieces of a file that a query reads or skips whole.
const blockBytes = 64 << 10

// A block says what a piece of a log file may hold, so that queries skip what they do not want.
type block struct {
	Start    int64  // offset of its first line
	Bytes    int64  // up to the end of its last line
	Last     uint64 // sequence of its last record
	Records  uint32
	Kinds    uint32 // a bit for each action and outcome in it
	Earliest int64  // milliseconds since 1970
	Latest   int64
	Bloom    [8]uint64 // of clients and types
}

// add takes a record of n bytes into the block.
func (b *block) add(e Event, n int64) {
	at := e.Time.UnixMilli()
	if b.Records == 0 {
		b.Earliest, b.Latest = at, at
	}
	b.Records++
	b.Last = max(b.Last, e.Seq)
	b.Bytes += n
	b.Earliest, b.Latest = min(b.Earliest, at), max(b.Latest, at)
	b.Kinds |= actionBit(e.Action) | outcomeBit(e.Outcome)
	b.mark(bloomOf('c', e.Client()))
	b.mark(bloomOf('t', e.Type))
}

func (b *block) mark(h uint64) {
	b.Bloom[h>>6&7] |= 1 << (h & 63)
	b.Bloom[h>>15&7] |= 1 << (h >> 9 & 63)
}

func (b *block) has(h uint64) bool {
	return b.Bloom[h>>6&7]&(1<<(h&63)) != 0 && b.Bloom[h>>15&7]&(1<<(h>>9&63)) != 0
}

// bloomOf is FNV-1a over kind and text; it stands in files, so it must not change.
func bloomOf(kind byte, text string) uint64 {
	h := uint64(14695981039346656037)
	h = (h ^ uint64(kind)) * 1099511628211
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h ^ h>>32
}

func actionBit(a Action) uint32 {
	return 1 << uint32(slices.Index([]Action{Create, Read, Update, Delete, Execute}, a)+1)
}

func outcomeBit(o Outcome) uint32 { return 1 << (8 + uint32(o)/4) }

// An index is the blocks of one file.
type index struct {
	Blocks []block
}

// add takes a record into the index and reports nothing: it cannot fail.
func (x *index) add(e Event, n int64) {
	last := len(x.Blocks) - 1
	if last < 0 || x.Blocks[last].Bytes+n > blockBytes {
		start := int64(0)
		if last >= 0 {
			start = x.Blocks[last].Start + x.Blocks[last].Bytes
		}
		x.Blocks = append(x.Blocks, block{Start: start})
		last++
	}
	x.Blocks[last].add(e, n)
}

// indexMagic starts a sidecar; its number is the version of block.
const indexMagic = "rtcdaix1"

// writeIndex keeps x beside its log file. It is a convenience that can be made again, so it is
// neither synced nor believed by Verify.
func writeIndex(path string, x index) error {
	var body bytes.Buffer
	body.WriteString(indexMagic)
	if err := binary.Write(&body, binary.LittleEndian, x.Blocks); err != nil {
		return err
	}
	sealed := binary.LittleEndian.AppendUint32(body.Bytes(), crc32.ChecksumIEEE(body.Bytes()))
	return os.WriteFile(path, sealed, 0o600)
}

// readIndex reads a sidecar of a log file of size bytes.
func readIndex(path string, size int64) (index, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return index{}, err
	}
	each := binary.Size(block{})
	n := len(text) - len(indexMagic) - crc32.Size
	if n < 0 || n%each != 0 || string(text[:len(indexMagic)]) != indexMagic ||
		binary.LittleEndian.Uint32(text[len(text)-crc32.Size:]) != crc32.ChecksumIEEE(text[:len(text)-crc32.Size]) {
		return index{}, errors.New("not an index")
	}
	x := index{Blocks: make([]block, n/each)}
	if err := binary.Read(bytes.NewReader(text[len(indexMagic):]), binary.LittleEndian, x.Blocks); err != nil {
		return index{}, err
	}
	at := int64(0)
	for _, b := range x.Blocks {
		if b.Start != at || b.Bytes <= 0 || b.Bytes > math.MaxInt64-at {
			return index{}, errors.New("not an index of this file")
		}
		at += b.Bytes
	}
	if at != size {
		return index{}, errors.New("not an index of this file")
	}
	return x, nil
}
