package logging

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestRedact(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("127.0.0.1")}
	for line, want := range map[string]string{
		"":                                "",
		"remoteAddr=203.0.113.77:54321 x": "remoteAddr=203.0.113.0/24 x",
		"path=udp0:203.0.113.77:4000":     "path=udp0:203.0.113.0/24",
		`"remoteAddr":"203.0.113.77:1"`:   `"remoteAddr":"203.0.113.0/24"`,
		"read tcp 192.0.2.1:8045->198.51.100.9:5678: connection reset by peer": "read tcp 192.0.2.1:8045->198.51.100.0/24: connection reset by peer",
		"address=192.0.2.1:8045":              "address=192.0.2.1:8045",
		"address=0.0.0.0:8045 [::]:8045":      "address=0.0.0.0:8045 [::]:8045",
		"from 2001:db8:a:b::77 to x":          "from 2001:db8:a::/48 to x",
		"from [2001:db8:a:b::77]:443 to x":    "from [2001:db8:a::/48]:443 to x",
		"own [2001:db8:1::1]:443":             "own [2001:db8:1::1]:443",
		"mapped ::ffff:203.0.113.77":          "mapped 203.0.113.0/24",
		"end 203.0.113.77.":                   "end 203.0.113.0/24.",
		"two 203.0.113.77,198.51.100.9":       "two 203.0.113.0/24,198.51.100.0/24",
		"err:203.0.113.77: refused":           "err:203.0.113.0/24: refused",
		"info  [2026-11-22 03:49:23.272 Z] x": "info  [2026-11-22 03:49:23.272 Z] x",
		"caller=a.go:12 v1.3.0 1.2.3 ab:cd":   "caller=a.go:12 v1.3.0 1.2.3 ab:cd",
		"sessionID=abcdef0123456789":          "sessionID=abcdef0123456789",
		"local 127.0.0.1:1 other 127.1.2.3:1": "local 127.0.0.1:1 other 127.1.2.0/24",
		"::1 fe80::1%eth0":                    "::/48 fe80::/48%eth0",
	} {
		var b bytes.Buffer
		n, err := newRedactor(&b, own).Write([]byte(line))
		if n != len(line) || err != nil || b.String() != want {
			t.Errorf("%q\n is %q\nwant %q (%d, %v)", line, b.String(), want, n, err)
		}
	}
}

// FuzzRedact: no line breaks it, none keeps an address, and what is cut already stays.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{"203.0.113.77:54321", "[2001:db8::1]:4 x", "::ffff:1.2.3.4", "1.2.3.4.5.6", ":::1", "a.b:c"} {
		f.Add([]byte(s))
	}
	r := newRedactor(nil, nil)
	f.Fuzz(func(t *testing.T, line []byte) {
		was := bytes.Clone(line)
		r.redact(line)
		if !bytes.Equal(was, line) {
			t.Errorf("the line itself was changed")
		}
		marked := append(append([]byte("x "), line...), " remote=203.0.113.77:9 "...)
		if got := r.redact(marked); !bytes.HasSuffix(got, []byte(" remote=203.0.113.0/24 ")) {
			t.Errorf("%q keeps an address: %q", marked, got)
		}
	})
}
