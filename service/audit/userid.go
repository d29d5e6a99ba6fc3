package audit

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Values of Config.UserID.
const (
	// HashUsers keeps a keyed hash: one user's events can be told to belong together, and whoever has
	// the key can tell whether they are those of a given id, but the log alone names nobody.
	HashUsers = "hash"
	// PlainUsers keeps the ids as they are.
	PlainUsers = "plain"
	// OmitUsers keeps none.
	OmitUsers = "omit"
)

// userIDs turns the ids of users into what the log keeps.
type userIDs struct {
	mode string
	key  []byte
}

func newUserIDs(mode, keyPath string) (userIDs, error) {
	switch mode {
	case PlainUsers, OmitUsers:
		return userIDs{mode: mode}, nil
	case "", HashUsers:
	default:
		return userIDs{}, fmt.Errorf("user_id %q is none of %q, %q, %q", mode, HashUsers, PlainUsers, OmitUsers)
	}
	key, err := userKey(keyPath)
	return userIDs{mode: HashUsers, key: key}, err
}

// userKey reads the key of the hashes, or makes one.
func userKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, sha256.Size)
		_, _ = rand.Read(key)
		return key, writeDurably(path, []byte(hex.EncodeToString(key)+"\n"))
	}
	if err != nil {
		return nil, err
	}
	if len(text) != 2*sha256.Size+1 {
		return nil, fmt.Errorf("read %s: not a key of %d hexadecimal digits", path, 2*sha256.Size)
	}
	key, err := hex.DecodeString(string(text[:2*sha256.Size]))
	if err != nil {
		return nil, fmt.Errorf("read %s: not a key of %d hexadecimal digits", path, 2*sha256.Size)
	}
	return key, os.Chmod(path, 0o600)
}

func (u userIDs) apply(id string) string {
	switch {
	case id == "" || u.mode == OmitUsers:
		return ""
	case u.mode == PlainUsers:
		return id
	}
	mac := hmac.New(sha256.New, u.key)
	mac.Write([]byte(id))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
