package negotiate

import (
	"testing"
	"time"
)

// What is urgent does not wait for the pause after an offer that nobody answered.
func TestUrge(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{})
	m.Ready(now)
	m.Want(now)
	m.OfferSent(now)
	now = m.Deadline()
	m.Expire(now)
	if got := m.Want(now); len(got) != 0 {
		t.Fatalf("offers again at once: %v", verbs(got))
	}
	if got := verbs(m.Urge(now)); got != "make " {
		t.Fatalf("does not offer what is urgent: %q", got)
	}
}

// An offer that is withdrawn makes way for another; the endpoint's lock still counts.
func TestWithdraw(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{})
	m.Ready(now)
	if got := m.Withdraw(now); got != nil {
		t.Fatalf("withdraws an offer that is not there: %v", verbs(got))
	}
	m.Want(now)
	m.OfferSent(now)
	if !m.Open() {
		t.Fatal("not open")
	}
	got := m.Withdraw(now)
	if len(got) != 3 || got[0].Verb != Rollback || got[0].Late || got[1].Verb != LockReleased || got[2].Verb != MakeOffer {
		t.Fatalf("got %q", verbs(got))
	}
	m.OfferSent(now)
	if got := m.Answer(now, "late"); len(got) != 1 || got[0].Verb != ApplyAnswer {
		t.Fatalf("got %q", verbs(got))
	}
	m.AnswerApplied(now)
	if !m.Lock(now) {
		t.Fatal("lock not free")
	}
	if got := m.Urge(now); len(got) != 0 {
		t.Fatalf("offers while the endpoint has the lock: %q", verbs(got))
	}
}
