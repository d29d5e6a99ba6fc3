package negotiate

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Unix(1_700_000_000, 0)

func verbs(actions []Action) string {
	s := ""
	for _, a := range actions {
		switch a.Verb {
		case AcceptOffer:
			s += "accept:" + a.SDP + " "
		case MakeOffer:
			s += "make "
		case ApplyAnswer:
			s += "answer:" + a.SDP + " "
		case Rollback:
			if !a.Late {
				s += "withdraw "
				continue
			}
			s += "rollback "
		case LockReleased:
			s += "released "
		default:
			s += fmt.Sprintf("verb(%d) ", a.Verb)
		}
	}
	return s
}

func want(t *testing.T, what string, got []Action, wantVerbs string) {
	t.Helper()
	if g := verbs(got); g != wantVerbs {
		t.Fatalf("%s: got %q, want %q", what, g, wantVerbs)
	}
}

// ready returns a machine whose first exchange is over.
func ready(t *testing.T) *Machine {
	t.Helper()
	m := New(Config{})
	want(t, "first offer", m.Offer(t0, "o1", WebSocket), "accept:o1 ")
	want(t, "accepted", m.OfferAccepted(t0), "")
	want(t, "ready", m.Ready(t0), "")
	return m
}

func TestServerOffersOnlyAfterFirstExchange(t *testing.T) {
	m := New(Config{})
	want(t, "want before ready", m.Want(t0), "")
	want(t, "offer", m.Offer(t0, "o1", DataChannel), "accept:o1 ")
	want(t, "accepted", m.OfferAccepted(t0), "")
	want(t, "ready", m.Ready(t0), "make ")
}

func TestWantsBecomeOneOffer(t *testing.T) {
	m := ready(t)
	want(t, "first want", m.Want(t0), "make ")
	m.OfferSent(t0)
	for range 50 {
		want(t, "want while open", m.Want(t0), "")
	}
	want(t, "answer", m.Answer(t0, "a1"), "answer:a1 ")
	want(t, "applied", m.AnswerApplied(t0), "released make ")
	m.OfferSent(t0)
	want(t, "answer", m.Answer(t0, "a2"), "answer:a2 ")
	want(t, "applied", m.AnswerApplied(t0), "released ")
	if d := m.Deadline(); !d.IsZero() {
		t.Fatalf("deadline %v in stable state", d)
	}
}

// S4: an answer that nobody asked for must do no harm.
func TestUnsolicitedAnswer(t *testing.T) {
	m := ready(t)
	want(t, "stray answer", m.Answer(t0, "stray"), "")
	want(t, "want", m.Want(t0), "make ")
	m.OfferSent(t0)
	want(t, "answer", m.Answer(t0, "a"), "answer:a ")
	want(t, "applied", m.AnswerApplied(t0), "released ")
	want(t, "late second answer", m.Answer(t0, "a"), "")
}

// S5: the server waits for the lock as long as it takes. S6: but no longer than the lease.
func TestLockLease(t *testing.T) {
	m := ready(t)
	if !m.Lock(t0) {
		t.Fatal("free lock refused")
	}
	if m.Lock(t0) {
		t.Fatal("taken lock granted again")
	}
	want(t, "want while locked", m.Want(t0.Add(time.Second)), "")
	if got, want := m.Deadline(), t0.Add(10*time.Second); !got.Equal(want) {
		t.Fatalf("deadline %v, want the lease's end %v", got, want)
	}
	want(t, "early", m.Expire(t0.Add(9*time.Second)), "")
	actions := m.Expire(t0.Add(10 * time.Second))
	want(t, "lease over", actions, "released make ")
	if got := actions[1].Waited; got != 9*time.Second {
		t.Fatalf("waited %v, want 9s", got)
	}
}

// S7: an unlock frees only the endpoint's own lock.
func TestUnlockOfServersLock(t *testing.T) {
	m := ready(t)
	want(t, "want", m.Want(t0), "make ")
	m.OfferSent(t0)
	want(t, "foreign unlock", m.Unlock(t0), "")
	if m.Lock(t0) {
		t.Fatal("endpoint got the lock while the server held it")
	}
	want(t, "answer", m.Answer(t0, "a"), "answer:a ")
	want(t, "applied", m.AnswerApplied(t0), "released ")
	want(t, "unlock of a free lock", m.Unlock(t0), "")
	if !m.Lock(t0) {
		t.Fatal("lock not free after the exchange")
	}
}

func TestUnlockLetsServerOffer(t *testing.T) {
	m := ready(t)
	m.Lock(t0)
	want(t, "offer under lock", m.Offer(t0, "o2", DataChannel), "accept:o2 ")
	want(t, "accepted", m.OfferAccepted(t0), "")
	want(t, "want", m.Want(t0), "")
	want(t, "unlock", m.Unlock(t0), "released make ")
}

// S10: an unanswered offer is rolled back and made again.
func TestAnswerTimeout(t *testing.T) {
	m := ready(t)
	want(t, "want", m.Want(t0), "make ")
	m.OfferSent(t0)
	now := m.Deadline()
	want(t, "timeout", m.Expire(now), "rollback released ")
	want(t, "stale answer", m.Answer(now, "late"), "")
	now = m.Deadline()
	want(t, "retry", m.Expire(now), "make ")
	m.OfferSent(now)
	want(t, "answer", m.Answer(now, "a"), "answer:a ")
	want(t, "applied", m.AnswerApplied(now), "released ")
}

func TestRetryPauseGrowsAndResets(t *testing.T) {
	m := ready(t)
	now := t0
	want(t, "want", m.Want(now), "make ")
	var pauses []time.Duration
	for range 8 {
		m.OfferSent(now)
		now = m.Deadline()
		m.Expire(now)
		pauses = append(pauses, m.Deadline().Sub(now))
		now = m.Deadline()
		want(t, "retry", m.Expire(now), "make ")
	}
	if pauses[0] != 500*time.Millisecond || pauses[1] != time.Second || pauses[7] != 30*time.Second {
		t.Fatalf("pauses %v", pauses)
	}
	m.AnswerApplied(now)
	m.Want(now)
	m.OfferSent(now)
	now = m.Deadline()
	m.Expire(now)
	if p := m.Deadline().Sub(now); p != 500*time.Millisecond {
		t.Fatalf("pause after a success %v", p)
	}
}

// S14: an offer that crosses ours is not lost.
func TestGlareHeldOfferTakenAfterTimeout(t *testing.T) {
	m := ready(t)
	want(t, "want", m.Want(t0), "make ")
	m.OfferSent(t0)
	want(t, "crossing offer", m.Offer(t0, "o2", WebSocket), "")
	now := m.Deadline()
	want(t, "timeout", m.Expire(now), "rollback released accept:o2 ")
	want(t, "accepted", m.OfferAccepted(now), "")
	want(t, "retry", m.Expire(m.Deadline()), "make ")
}

func TestGlareHeldOfferForgottenAfterAnswer(t *testing.T) {
	m := ready(t)
	want(t, "want", m.Want(t0), "make ")
	m.OfferSent(t0)
	want(t, "crossing offer", m.Offer(t0, "o2", WebSocket), "")
	want(t, "answer", m.Answer(t0, "a"), "answer:a ")
	want(t, "applied", m.AnswerApplied(t0), "released ")
	want(t, "made anew", m.Offer(t0, "o3", WebSocket), "accept:o3 ")
}

func TestAnswerThatDoesNotApply(t *testing.T) {
	m := ready(t)
	want(t, "want", m.Want(t0), "make ")
	m.OfferSent(t0)
	want(t, "answer", m.Answer(t0, "bad"), "answer:bad ")
	want(t, "failed", m.AnswerFailed(t0), "released ")
	want(t, "retry", m.Expire(m.Deadline()), "make ")
}

func TestOfferFlood(t *testing.T) {
	m := ready(t)
	accepted := 0
	now := t0
	for range 1050 { // not a multiple of the 200 ms between tokens: the last offer waits
		now = now.Add(time.Millisecond)
		accepted += len(m.Offer(now, "o", WebSocket))
	}
	if accepted > 26 { // burst 20, then 5 a second
		t.Fatalf("%d of 1,050 offers in a second were taken", accepted)
	}
	// The newest is not lost, only late.
	want(t, "late", m.Expire(m.Deadline()), "accept:o ")
}

// The machine never has two offers open, never offers under the endpoint's lock, and from any
// state finds back to an offer once the endpoint behaves.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := New(Config{})
		now := t0
		offering, firstDone, clientLock := false, false, false
		var do func([]Action)
		do = func(actions []Action) {
			for _, a := range actions {
				switch a.Verb {
				case MakeOffer:
					if offering || !firstDone || clientLock {
						r.Fatalf("offer while offering=%v ready=%v client lock=%v", offering, firstDone, clientLock)
					}
					switch rapid.IntRange(0, 3).Draw(r, "make") {
					case 0:
						do(m.OfferSkipped(now))
					case 1:
						do(m.OfferFailed(now))
					default:
						offering = true
						m.OfferSent(now)
					}
				case AcceptOffer:
					if offering {
						r.Fatal("accepting an offer while ours is open")
					}
					do(m.OfferAccepted(now))
				case ApplyAnswer:
					if !offering {
						r.Fatal("answer applied without an offer")
					}
					offering = false
					if rapid.Bool().Draw(r, "applies") {
						do(m.AnswerApplied(now))
					} else {
						do(m.AnswerFailed(now))
					}
				case Rollback:
					if !offering {
						r.Fatal("rollback without an offer")
					}
					offering = false
				case LockReleased:
					clientLock = false
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 7).Draw(r, "op") {
			case 0:
				do(m.Offer(now, "o", WebSocket))
			case 1:
				do(m.Answer(now, "a"))
			case 2:
				do(m.Want(now))
			case 3:
				if m.Lock(now) {
					clientLock = true
				}
			case 4:
				do(m.Unlock(now))
			case 5:
				firstDone = true
				do(m.Ready(now))
			case 6:
				now = now.Add(time.Duration(rapid.IntRange(0, 12_000).Draw(r, "ms")) * time.Millisecond)
				do(m.Expire(now))
			case 7:
				if d := m.Deadline(); d.After(now) {
					now = d
				}
				do(m.Expire(now))
			}
		}
	})
}
