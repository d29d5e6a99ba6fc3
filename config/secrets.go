package config

import (
	"fmt"
	"math"
	"strings"
)

// sampleSecrets are found in examples and documentation, so they are no secrets.
var sampleSecrets = []string{
	"admin_secret_key", "admin", "admin123", "changeme", "change-me", "change_me", "default", "example", "password",
	"rtcd", "s3cret", "secret", "secret_key", "test", "qwerty", "your_secret_key", "supersecret", "devkey", "dev", "key",
	"sample", "demo", "passw0rd", "letmein", "insecure", "notsecret", "topsecret", "hunter2", "mattermost", "calls",
	"static_auth_secret", "auditor_secret_key", "registration_token", "your-secret-key", "mysecret", "replace_me", "replaceme",
	"north", "coturn", "turnsecret", "turn", "root", "toor", "guest", "user", "foobar", "foo", "bar", "baz", "xxx",
}

// commonWords are what people make secrets of, beside sampleSecrets.
var commonWords = []string{
	"about", "access", "account", "alpha", "apple", "audio", "auditor", "auth", "battery", "beta", "blue", "call", "client",
	"company", "config", "correct", "development", "docker", "dragon", "football", "for", "from", "green", "have", "hello",
	"horse", "house", "internal", "iloveyou", "kubernetes", "local", "localhost", "login", "long", "master", "media", "monkey",
	"month", "my", "new", "not", "our", "pass", "please", "private", "prod", "production", "public", "random", "red",
	"register", "registration", "secure", "security", "server", "service", "shared", "staging", "staple", "static", "summer",
	"sunshine", "super", "system", "team", "that", "the", "this", "token", "value", "very", "video", "welcome", "winter",
	"with", "word", "world", "year", "your", "asdfgh", "zxcvbn", "qwertyuiop", "asdfghjkl", "zxcvbnm", "1q2w3e4r", "qazwsx",
}

const (
	minSecretBytes   = 32
	minDistinctBytes = 8
	minSecretBits    = 96
	wordBits         = 9      // of one word out of those that come to mind
	separators       = "-_ ." // between words; which one costs next to nothing
	minRepeat        = 3      // bytes
	maxSpelled       = 256    // bytes that are looked at: spelling costs the square and more
)

// weakSecret says why a secret can be guessed, or "".
func weakSecret(s string) string {
	lower := strings.ToLower(strings.TrimSpace(s))
	for _, sample := range sampleSecrets {
		if lower != "" && strings.ReplaceAll(lower, sample, "") == "" {
			return "is a well-known sample value"
		}
	}
	if len(s) < minSecretBytes {
		return fmt.Sprintf("is shorter than %d bytes", minSecretBytes)
	}
	distinct := map[byte]bool{}
	for _, b := range []byte(s) {
		distinct[b] = true
	}
	if len(distinct) < minDistinctBytes {
		return fmt.Sprintf("has fewer than %d different characters", minDistinctBytes)
	}
	if bits := secretBits(s); bits < minSecretBits {
		return fmt.Sprintf("can be guessed: about %.0f bits of it are random, %d are needed", bits, minSecretBits)
	}
	return ""
}

// secretBits estimates the entropy of a secret in bits, rather too low than too high for one that
// a person made, and close to the truth for a random one: the lower of what its letters say and of
// what it takes to spell it with words, repeats and runs. Of a long one only the beginning counts.
func secretBits(s string) float64 {
	s = s[:min(len(s), maxSpelled)]
	return min(letterBits(s), spellBits(s))
}

// letterBits is the entropy of the letters by how often they occur, with the correction for short
// samples of Miller and Madow.
func letterBits(s string) float64 {
	var count [256]int
	for _, b := range []byte(s) {
		count[b]++
	}
	n, distinct, bits := float64(len(s)), 0, 0.0
	for _, c := range count {
		if c > 0 {
			p := float64(c) / n
			bits -= p * math.Log2(p)
			distinct++
		}
	}
	return n*bits + float64(distinct-1)/(2*math.Ln2)
}

// spellBits adds up the cheapest way to spell the secret: byte by byte, by known words, by what
// stood before, and by runs such as "aaaa" and "1234".
func spellBits(s string) float64 {
	text := strings.ToLower(s)
	letter := math.Log2(alphabet(s))
	cost := make([]float64, len(text)+1) // of the text up to there
	for i := range text {
		cost[i+1] = math.Inf(1)
	}
	reach := func(i, n int, bits float64) { cost[i+n] = min(cost[i+n], cost[i]+bits) }
	for i := range len(text) {
		reach(i, 1, letter)
		for _, words := range [2][]string{sampleSecrets, commonWords} {
			for _, w := range words {
				if strings.HasPrefix(text[i:], w) {
					reach(i, len(w), wordBits)
				} else if strings.IndexByte(separators, text[i]) >= 0 && strings.HasPrefix(text[i+1:], w) {
					reach(i, 1+len(w), wordBits+1)
				}
			}
		}
		for n := minRepeat; n <= len(text)-i && strings.Contains(text[:i+n-1], text[i:i+n]); n++ {
			reach(i, n, math.Log2(float64(i))+math.Log2(float64(n)))
		}
		for _, step := range [3]int{0, 1, -1} {
			for n := 2; n <= len(text)-i && int(text[i+n-1])-int(text[i+n-2]) == step; n++ {
				if n >= minRepeat {
					reach(i, n, letter+2+math.Log2(float64(n)))
				}
			}
		}
	}
	return cost[len(text)]
}

// alphabet returns how many characters the secret's were probably chosen from.
func alphabet(s string) float64 {
	if strings.Trim(s, "0123456789") == "" {
		return 10
	}
	if strings.Trim(s, "0123456789abcdef") == "" || strings.Trim(s, "0123456789ABCDEF") == "" {
		return 16
	}
	size := 0.0
	for _, class := range []struct {
		first, last byte
	}{{'a', 'z'}, {'A', 'Z'}, {'0', '9'}} {
		if strings.ContainsFunc(s, func(r rune) bool { return r >= rune(class.first) && r <= rune(class.last) }) {
			size += float64(class.last-class.first) + 1
		}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) {
		size += 6 // those of base64 and the like; rarely more are used
	}
	return size
}
