package browsertest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// move gives the namespace another address, in the place of the one it has. What was reachable from it
// still is.
func (l *link) move(t *testing.T) {
	t.Helper()
	pid := os.Getpid()
	address := func(host int) string { return fmt.Sprintf("198.19.%d.%d", pid/64%256, pid%64*4+host) }
	inside := fmt.Sprintf("rtcd%db", pid)
	run(t, "ip", "address", "replace", address(1)+"/30", "dev", l.outside)
	run(t, "ip", "-n", l.namespace, "address", "flush", "dev", inside)
	run(t, "ip", "-n", l.namespace, "address", "add", address(2)+"/30", "dev", inside)
	run(t, "ip", "-n", l.namespace, "route", "replace", "default", "via", address(1))
}

// Bert's browser changes networks in the middle of the call. He hears Anna again, in the same session.
func TestMove(t *testing.T) {
	path := chromium(t)
	l := newLink(t)
	d := startDemoAt(t, "0.0.0.0")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	anna := open(ctx, t, path, d.link, "Anna", "")
	explain(t, anna)
	bert := open(ctx, t, l.inside(t, path), strings.Replace(d.link, "127.0.0.1", l.address, 1), "Bert", "")
	before := hears(t, bert, "Bert")
	self := func() string {
		id, err := chromedp.Run(bert, chromedp.Evaluate[string](`app.id`))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	id := self()

	l.move(t)
	start := time.Now()
	n, _ := look(t, bert).packets()
	after := until(t, bert, "Bert hears Anna from elsewhere", func(s stats) bool {
		got, _ := s.packets()
		return got > n+50
	})
	t.Logf("heard again after %v, 50 packets included", time.Since(start).Round(10*time.Millisecond))
	if id == "" || self() != id {
		t.Errorf("Bert was %q and is %q", id, self())
	}
	if before.id("Anna") != after.id("Anna") {
		t.Error("Anna is another one")
	}
	until(t, bert, "Bert's page is connected", func(s stats) bool { return s.State == "connected" })
}
