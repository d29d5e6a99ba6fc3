package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
	"unicode/utf8"
)

// Bounds of what is stored (protocol, section 4.3).
const (
	maxIDBytes   = 64
	maxHashBytes = 255
	maxRoles     = 16
	maxRoleBytes = 32
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
	// Roles are what an operator gave it, at most 16 of 1 to 32 bytes of [a-z0-9._-], without
	// repetition. nil says that nobody did, and the default applies; an empty slice is none at all.
	Roles []string
	// Epoch grows with every change that ends what the client's credentials have opened. That of a
	// new client is above that of every client removed before, so that none of an id comes again.
	// It is at least 1. Insert chooses it.
	Epoch uint64
	// Revoked says that no key belongs to the hash.
	Revoked bool
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
	return checkRoles(c.Roles)
}

func checkRoles(roles []string) error {
	if len(roles) > maxRoles {
		return fmt.Errorf("%w: %d roles, at most %d", ErrInvalid, len(roles), maxRoles)
	}
	for i, role := range roles {
		if !validRole(role) || slices.Contains(roles[:i], role) {
			return fmt.Errorf("%w: role %q", ErrInvalid, role)
		}
	}
	return nil
}

func validRole(role string) bool {
	for i := range len(role) {
		switch c := role[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return role != "" && len(role) <= maxRoleBytes
}

// clone returns a copy that shares nothing with c. It keeps nil and empty roles apart.
func (c Client) clone() Client {
	c.Hash = slices.Clone(c.Hash)
	c.Roles = slices.Clone(c.Roles)
	return c
}

// Keys: "client/" + id, "account/" + id, "callid/" + group and call (callids.go), and what the
// store notes about itself below "meta/".
var (
	clientPrefix  = []byte("client/")
	accountPrefix = []byte("account/")
	importedKey   = []byte("meta/former-imported")
	epochKey      = []byte("meta/epoch")
)

func clientKey(id string) []byte  { return joined(clientPrefix, id) }
func accountKey(id string) []byte { return joined(accountPrefix, id) }

func joined(prefix []byte, id string) []byte {
	return append(append(make([]byte, 0, len(prefix)+len(id)), prefix...), id...)
}

const (
	recordVersion     = 1
	recordHeaderSize  = 1 + 4 + 8
	accountHeaderSize = 1 + 4 + 8 + 8 + 1 + 1
	epochRecordSize   = 1 + 4 + 8
)

// Flags of an account record.
const (
	accountHasRoles = 1 << iota
	accountRevoked
	accountFlags = iota // how many there are
)

var (
	errRecordShort    = errors.New("record too short")
	errRecordChecksum = errors.New("record checksum does not match")
	errRecordForm     = errors.New("record is not formed as this server does")
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
//
// Roles and epoch have a record of their own (encodeAccount), and this one has stayed what it was: a
// server from before there were any goes on to serve every client, and refuses the revoked.
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

// sound checks what all records begin with, and that b has size bytes at least.
func sound(id string, b []byte, size int) error {
	if len(b) == 0 {
		return errRecordShort
	}
	if b[0] != recordVersion {
		return fmt.Errorf("record version %d, this server knows %d", b[0], recordVersion)
	}
	if len(b) < size {
		return errRecordShort
	}
	if binary.BigEndian.Uint32(b[1:]) != recordChecksum(id, b) {
		return errRecordChecksum
	}
	return nil
}

// decodeClient reads the stored form of the client id. It copies what it keeps.
func decodeClient(id string, b []byte) (Client, error) {
	if err := sound(id, b, recordHeaderSize+1); err != nil {
		return Client{}, err
	}
	c := Client{
		ID:      id,
		Hash:    append([]byte(nil), b[recordHeaderSize:]...),
		Created: time.Unix(0, int64(binary.BigEndian.Uint64(b[5:]))).UTC(),
		Epoch:   1,
	}
	return c, c.check()
}

// plain reports whether c has nothing that needs an account record.
func (c Client) plain() bool { return c.Epoch <= 1 && c.Roles == nil && !c.Revoked }

// encodeAccount returns the stored form of what an operator may change, integers big endian:
//
//	1 byte   version, 1
//	4 bytes  CRC-32C of the id and of everything behind this field
//	8 bytes  creation of the client it belongs to, as in the client's record
//	8 bytes  epoch
//	1 byte   flags: 1 it has roles, 2 it is revoked
//	1 byte   number of roles
//	         each role: 1 byte length, n bytes
//
// The creation tells an account of a client that an older server has removed, and registered anew.
func (c Client) encodeAccount() []byte {
	b := make([]byte, accountHeaderSize, accountHeaderSize+len(c.Roles)*(1+maxRoleBytes))
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[5:], uint64(c.Created.UnixNano()))
	binary.BigEndian.PutUint64(b[13:], c.Epoch)
	if c.Roles != nil {
		b[21] |= accountHasRoles
	}
	if c.Revoked {
		b[21] |= accountRevoked
	}
	b[22] = byte(len(c.Roles))
	for _, role := range c.Roles {
		b = append(append(b, byte(len(role))), role...)
	}
	binary.BigEndian.PutUint32(b[1:], recordChecksum(c.ID, b))
	return b
}

// An account is what its record says.
type account struct {
	created time.Time
	epoch   uint64
	roles   []string
	revoked bool
}

// decodeAccount reads the stored form of the account of client id.
func decodeAccount(id string, b []byte) (account, error) {
	if err := sound(id, b, accountHeaderSize); err != nil {
		return account{}, err
	}
	flags, count, rest := b[21], int(b[22]), b[accountHeaderSize:]
	a := account{
		created: time.Unix(0, int64(binary.BigEndian.Uint64(b[5:]))).UTC(),
		epoch:   binary.BigEndian.Uint64(b[13:]),
		revoked: flags&accountRevoked != 0,
	}
	hasRoles := flags&accountHasRoles != 0
	if flags>>accountFlags != 0 || count > maxRoles || count > 0 && !hasRoles || a.epoch == 0 {
		return account{}, errRecordForm
	}
	if hasRoles {
		a.roles = make([]string, 0, count)
	}
	for range count {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return account{}, errRecordShort
		}
		a.roles = append(a.roles, string(rest[1:1+rest[0]]))
		rest = rest[1+rest[0]:]
	}
	if len(rest) != 0 {
		return account{}, errRecordForm
	}
	return a, checkRoles(a.roles)
}

// join gives a client what its account says.
func (a account) join(c Client) Client {
	c.Roles, c.Epoch, c.Revoked = a.roles, a.epoch, a.revoked
	return c
}

// encodeEpoch returns the stored form of the highest epoch of a removed client: version, checksum,
// 8 bytes big endian.
func encodeEpoch(epoch uint64) []byte {
	b := make([]byte, epochRecordSize)
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[5:], epoch)
	binary.BigEndian.PutUint32(b[1:], recordChecksum("", b))
	return b
}

func decodeEpoch(b []byte) (uint64, error) {
	if err := sound("", b, epochRecordSize); err != nil {
		return 0, err
	}
	if len(b) != epochRecordSize {
		return 0, errRecordForm
	}
	return binary.BigEndian.Uint64(b[5:]), nil
}
