package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"
)

// Bounds of what is stored (protocol, section 4.3).
const (
	maxIDBytes   = 64
	maxHashBytes = 255
)

// A Client is one registration.
type Client struct {
	// ID names the client: 1 to 64 bytes of UTF-8.
	ID string
	// Hash is the bcrypt hash of its key, 1 to 255 bytes.
	Hash []byte
	// Created is when it registered; Insert takes the zero value for now. A client taken over from
	// the former layout has the time of the file that it was in.
	Created time.Time
}

func (c Client) check() error {
	switch {
	case c.ID == "":
		return fmt.Errorf("%w: empty id", ErrInvalid)
	case len(c.ID) > maxIDBytes:
		return fmt.Errorf("%w: id of %d bytes, at most %d", ErrInvalid, len(c.ID), maxIDBytes)
	case !utf8.ValidString(c.ID):
		return fmt.Errorf("%w: id is not UTF-8", ErrInvalid)
	case len(c.Hash) == 0 || len(c.Hash) > maxHashBytes:
		return fmt.Errorf("%w: hash of %d bytes", ErrInvalid, len(c.Hash))
	}
	return nil
}

// Keys: "client/" + id, and what the store notes about itself below "meta/".
var (
	clientPrefix = []byte("client/")
	importedKey  = []byte("meta/former-imported")
)

func clientKey(id string) []byte {
	return append(append(make([]byte, 0, len(clientPrefix)+len(id)), clientPrefix...), id...)
}

const (
	recordVersion    = 1
	recordHeaderSize = 1 + 4 + 8
)

var (
	errRecordShort    = errors.New("record too short")
	errRecordChecksum = errors.New("record checksum does not match")
	castagnoli        = crc32.MakeTable(crc32.Castagnoli)
)

// encode returns the stored form, integers big endian:
//
//	1 byte   version, 1
//	4 bytes  CRC-32C of the id and of everything behind this field
//	8 bytes  creation, nanoseconds since 1970 UTC
//	n bytes  hash
//
// The checksum covers the id, so that a hash never counts for a client it was not made for.
func (c Client) encode() []byte {
	b := make([]byte, recordHeaderSize, recordHeaderSize+len(c.Hash))
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[5:], uint64(c.Created.UnixNano()))
	b = append(b, c.Hash...)
	binary.BigEndian.PutUint32(b[1:], recordChecksum(c.ID, b))
	return b
}

func recordChecksum(id string, record []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(id), castagnoli), castagnoli, record[5:])
}

// decodeClient reads the stored form of the client id. It copies what it keeps.
func decodeClient(id string, b []byte) (Client, error) {
	if len(b) == 0 {
		return Client{}, errRecordShort
	}
	if b[0] != recordVersion {
		return Client{}, fmt.Errorf("record version %d, this server knows %d", b[0], recordVersion)
	}
	if len(b) <= recordHeaderSize {
		return Client{}, errRecordShort
	}
	if binary.BigEndian.Uint32(b[1:]) != recordChecksum(id, b) {
		return Client{}, errRecordChecksum
	}
	c := Client{
		ID:      id,
		Hash:    append([]byte(nil), b[recordHeaderSize:]...),
		Created: time.Unix(0, int64(binary.BigEndian.Uint64(b[5:]))).UTC(),
	}
	return c, c.check()
}
