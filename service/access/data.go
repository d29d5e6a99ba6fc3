package access

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A DataPolicy says what the data of a token may hold. Everybody in the call may come to see it, so
// it must not be personal.
type DataPolicy string

// The policies.
const (
	DataOpaque DataPolicy = "opaque" // at most 128 of A-Z a-z 0-9 . _ ~ -
	DataText   DataPolicy = "text"   // at most 1,000 bytes that look like no address, number or name
	DataDeny   DataPolicy = "deny"   // nothing
)

const (
	maxOpaque = 128
	maxText   = 1000
)

// phone matches what may be dialled: seven digits or more, with what people put between them.
var phone = regexp.MustCompile(`\+?[0-9](?:[-./()]*[0-9]){6,}`)

// check says what is wrong with data.
func (p DataPolicy) check(data string) error {
	if data == "" {
		return nil
	}
	switch p {
	case DataDeny:
		return bad("token data is not allowed")
	case DataText:
		switch {
		case len(data) > maxText:
			return bad("token data: more than %d bytes", maxText)
		case !utf8.ValidString(data) || strings.ContainsFunc(data, unicode.IsControl):
			return bad("token data is no text")
		case strings.Contains(data, "@"), strings.ContainsFunc(data, unicode.IsSpace), phone.MatchString(data):
			return ErrPersonalData
		}
		return nil
	}
	if len(data) > maxOpaque {
		return bad("token data: more than %d bytes", maxOpaque)
	}
	for i := range len(data) {
		switch c := data[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("._~-", c) >= 0:
		case c < ' ' || c == 0x7f:
			return bad("token data is no text")
		default:
			return ErrPersonalData
		}
	}
	return nil
}
