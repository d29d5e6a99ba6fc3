package feed

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Headers of a webhook's request.
const (
	HeaderEventID   = "Rtcd-Event-Id"  // of the last event in the body
	HeaderTimestamp = "Rtcd-Timestamp" // seconds since 1970, of this attempt
	HeaderSignature = "Rtcd-Signature" // v1=<hex>, one for each secret, parted by commas
)

// signature returns the value of HeaderSignature: HMAC-SHA256 over timestamp, a dot and the body.
func signature(secrets []string, timestamp string, body []byte) string {
	var all []string
	for _, s := range secrets {
		mac := hmac.New(sha256.New, []byte(s))
		mac.Write([]byte(timestamp + "."))
		mac.Write(body)
		all = append(all, "v1="+hex.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, ",")
}
