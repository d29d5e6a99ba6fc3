package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/rtc"
)

// Whoever is the audience, everything is told once and in its order.
func TestOutletKeepsOrderBetweenAudiences(t *testing.T) {
	const audiences, each, speakers = 20, 100, 4
	var cfg rtc.Config
	var mu sync.Mutex
	heard := make(map[string][]string)
	audienceOf := func() *audience {
		return &audience{emit: func(e rtc.Event) {
			mu.Lock()
			heard[e.SessionID] = append(heard[e.SessionID], string(e.Data))
			mu.Unlock()
		}}
	}
	cfg.Emit = audienceOf().emit
	o := throughOutlet(&cfg)
	var talking sync.WaitGroup
	for s := range speakers {
		talking.Go(func() {
			for i := range audiences * each {
				cfg.Emit(rtc.Event{SessionID: fmt.Sprint(s), Data: fmt.Append(nil, i)})
			}
		})
	}
	for range audiences {
		o.hold()
		o.attach(audienceOf())
	}
	talking.Wait()
	for s := range speakers {
		list := heard[fmt.Sprint(s)]
		if len(list) != audiences*each {
			t.Fatalf("%d of %d events", len(list), audiences*each)
		}
		for i, got := range list {
			if got != fmt.Sprint(i) {
				t.Fatalf("event %d is %s", i, got)
			}
		}
	}
}

// An error of package rtc is the same in another process.
func TestRefusalsCross(t *testing.T) {
	for _, err := range append(refusals, nil, errors.New("something else")) {
		b, jerr := json.Marshal(outcome{Refusal: refusalOf(err)})
		if jerr != nil {
			t.Fatal(jerr)
		}
		var out outcome
		if jerr := json.Unmarshal(b, &out); jerr != nil {
			t.Fatal(jerr)
		}
		got := out.Refusal.err()
		if fmt.Sprint(got) != fmt.Sprint(err) || reasonOf(got) != reasonOf(err) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	srv, err := rtc.NewServer(t.Context(), rtc.Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Metrics: metrics.New(), Limits: rtc.Limits{Sessions: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	for i, wants := range []string{"", "at_capacity"} {
		o := order{Verb: orderJoin, Group: "g", Join: &wire.Join{CallID: "c", UserID: "u", SessionID: fmt.Sprint(i)}, Grant: &rtc.Grant{}}
		err := carryOut(srv, o).Refusal.err()
		if reasonOf(err) != wants || errors.Is(err, rtc.ErrLimit) != (wants != "") {
			t.Errorf("join %d: %v", i, err)
		}
	}
	for _, o := range []order{{Verb: orderJoin}, {Verb: orderSignal}, {Verb: "fly"}} {
		if carryOut(srv, o).Refusal == nil {
			t.Errorf("order %+v is carried out", o)
		}
	}
}

func reasonOf(err error) string {
	var named interface{ Reason() string }
	if errors.As(err, &named) {
		return named.Reason()
	}
	return ""
}
