package report

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// large is a call of so many busy sessions of that length.
func large(sessions, seconds int, name string) *Record {
	random := rand.New(rand.NewPCG(5, 6))
	r := &Record{ID: name, Started: 1_767_362_400_000, Ended: 1_767_362_400_000 + int64(seconds)*1000}
	for i := range sessions {
		rec := new(Recorder)
		for k := range int64(seconds) {
			s := busy(1_767_362_401+k, random)
			rec.Add(&s)
		}
		rec.Event(Event{Unix: r.Started, Kind: StreamStarted, Stream: name, Detail: name})
		r.Sessions = append(r.Sessions, Recorded{ID: name + string(rune('a'+i%26)), User: name, Joined: r.Started, Recorder: rec})
	}
	return r
}

// A page of twenty people and an hour is small, and what ids say stays text.
func TestPageIsSmallAndSafe(t *testing.T) {
	const hostile = `</title></svg><script>alert(1)</script>"' onload=x <style>`
	call := large(20, 3600, hostile).Open(0)
	var b bytes.Buffer
	if err := call.Page(&b, Analyse(call)); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if len(page) > 2<<20 {
		t.Errorf("%d bytes", len(page))
	}
	for _, bad := range []string{"<script", "src=", "http://", "https://", "</title></svg>", `onload=x <style>`} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	body, err := json.Marshal(call.Document(Analyse(call)))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("page of %d bytes, document of %d", len(page), len(body))
	if len(body) > 8<<20 {
		t.Errorf("%d bytes of JSON", len(body))
	}
}

// A call of a thousand sessions is made in a time that hurts nobody, and is bounded in size.
func TestLargeCallIsBounded(t *testing.T) {
	r := large(1000, 120, "c")
	begin := time.Now()
	call := r.Open(0)
	findings := Analyse(call)
	var b bytes.Buffer
	if err := call.Page(&b, findings); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(call.Document(findings))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: page of %d bytes, document of %d, %d findings", time.Since(begin), b.Len(), len(body), len(findings))
	if b.Len() > 4<<20 || len(body) > 8<<20 {
		t.Errorf("page of %d bytes, document of %d", b.Len(), len(body))
	}
}
