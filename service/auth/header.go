package auth

import (
	"encoding/base64"
	"strings"
)

const (
	// maxHeaderBytes bounds an Authorization header.
	maxHeaderBytes = 16 << 10
	bearerScheme   = "Bearer "
	basicScheme    = "basic "
)

// given is what a header claims: a token, or id and key.
type given struct{ token, id, key string }

// parseAuthorization reads an Authorization header (protocol, section 5.1): "Bearer" and one
// blank exactly so, or basic authentication (RFC 7617), whose id ends at the first colon.
func parseAuthorization(header string) (given, error) {
	if len(header) > maxHeaderBytes {
		return given{}, ErrInvalidHeader
	}
	if token, ok := strings.CutPrefix(header, bearerScheme); ok {
		if len(token) != tokenChars {
			return given{}, ErrTokenInvalid
		}
		return given{token: token}, nil
	}
	if len(header) < len(basicScheme) || !strings.EqualFold(header[:len(basicScheme)], basicScheme) {
		return given{}, ErrInvalidHeader
	}
	plain, err := base64.StdEncoding.Strict().DecodeString(header[len(basicScheme):])
	if err != nil {
		return given{}, ErrInvalidHeader
	}
	id, key, ok := strings.Cut(string(plain), ":")
	if !ok {
		return given{}, ErrInvalidHeader
	}
	return given{id: id, key: key}, nil
}
