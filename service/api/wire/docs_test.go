package wire_test

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The document shows the bytes of every message, and no others.
func TestDocumentedBytes(t *testing.T) {
	text, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]string)
	comment := regexp.MustCompile(`#.*`)
	for _, m := range regexp.MustCompile("(?s)```hex([^\n]*)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		kind, name, _ := strings.Cut(strings.TrimSpace(m[1]), "/")
		switch _, twice := shown[name]; {
		case kind == "dc": // the other package's
			continue
		case kind != "ws":
			t.Errorf("no test reads the block %q", m[1])
		case twice:
			t.Errorf("%s is shown twice", name)
		}
		shown[name] = strings.Join(strings.Fields(comment.ReplaceAllString(m[2], "")), "")
	}
	for _, g := range golden {
		if want := hex.EncodeToString(unhex(t, g.hex)); shown[g.name] != want {
			t.Errorf("%s: the document shows %q, want %s", g.name, shown[g.name], want)
		}
		delete(shown, g.name)
	}
	for name := range shown {
		t.Errorf("%s is in the document but not tested", name)
	}
}
