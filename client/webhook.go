package client

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers of a webhook.
const (
	HeaderEventID   = "Rtcd-Event-Id"  // ID of the last event in the body
	HeaderTimestamp = "Rtcd-Timestamp" // seconds since 1970
	HeaderSignature = "Rtcd-Signature" // v1=<hex HMAC-SHA256 of timestamp.body>, one for each secret of the server
)

// Errors of VerifyWebhook.
var (
	ErrSignature = errors.New("the webhook is not signed with this secret")
	ErrTimestamp = errors.New("the webhook is too old, or of the future")
)

// maxSignatures bounds how many signatures of a header are looked at.
const maxSignatures = 8

// VerifyWebhook checks that a webhook's body, as it came, is signed with one of the secrets, and that its
// timestamp differs from now by no more than the tolerance, five minutes for instance: what others have
// seen they cannot send again later. It does not say what was wrong to whoever sent it: answer 401.
func VerifyWebhook(h http.Header, body []byte, secrets []string, now time.Time, tolerance time.Duration) error {
	stamp := h.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return fmt.Errorf("verify webhook: %w", ErrTimestamp)
	}
	if !signedBy(h.Get(HeaderSignature), stamp, body, secrets) {
		return fmt.Errorf("verify webhook: %w", ErrSignature)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return fmt.Errorf("verify webhook: %w", ErrTimestamp)
	}
	return nil
}

func signedBy(header, stamp string, body []byte, secrets []string) bool {
	good := false
	for i, part := range strings.SplitN(header, ",", maxSignatures+1) {
		text, isV1 := strings.CutPrefix(part, "v1=")
		sum, err := hex.DecodeString(text)
		if i >= maxSignatures || !isV1 || err != nil {
			continue
		}
		for _, secret := range secrets {
			if secret == "" {
				continue
			}
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(stamp + "."))
			mac.Write(body)
			good = hmac.Equal(mac.Sum(nil), sum) || good
		}
	}
	return good
}

// ParseWebhook returns the events of a webhook's body that was verified.
func ParseWebhook(body []byte) ([]CallEvent, error) {
	var batch struct {
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		return nil, fmt.Errorf("parse webhook: %w", err)
	}
	events := make([]CallEvent, len(batch.Events))
	for i, raw := range batch.Events {
		if err := json.Unmarshal(raw, &events[i]); err != nil {
			return nil, fmt.Errorf("parse webhook: %w", err)
		}
		events[i].Raw = raw
	}
	return events, nil
}
