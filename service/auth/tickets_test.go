package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Row OT-07: a ticket opens a WebSocket for 60 s, at 59 s still, at 61 s not any more.
func TestTicketLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(Config{BcryptCost: bcrypt.MinCost}, newMemory(), nil)
		defer s.Close()
		mustRegister(t, s, "c1")
		p := mustBasic(t, s, "c1", key)
		first, expires, err := s.NewTicket(t.Context(), p, Binding{Addr: here})
		if err != nil || expires != time.Now().Add(60*time.Second) {
			t.Fatalf("expires %v, %v", expires, err)
		}
		second, unused := mustTicket(t, s, p), mustTicket(t, s, p)
		time.Sleep(59 * time.Second)
		got, err := s.Authenticate(t.Context(), by(first))
		if err != nil || got.ClientID != "c1" || got.Epoch != p.Epoch || got.Method != MethodTicket || len(got.Roles) != 1 {
			t.Errorf("at 59 s: %+v, %v", got, err)
		}
		time.Sleep(2 * time.Second)
		_, err = s.Authenticate(t.Context(), by(second))
		wantErr(t, "at 61 s", err, ErrTicketInvalid, "authentication failed: ticket is invalid")
		time.Sleep(sweepInterval)
		synctest.Wait()
		if len(s.tickets.byID)+len(s.tickets.byClient) != 0 {
			t.Error("an expired ticket that nobody used stays in memory")
		}
		_, err = s.Authenticate(t.Context(), by(unused))
		wantErr(t, "swept", err, ErrTicketInvalid, "authentication failed: ticket is invalid")
	})
}

// Row OT-07, C18: of 50 uses of one ticket at once exactly one succeeds.
func TestTicketIsUsedOnce(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1")
	p := mustBasic(t, s, "c1", key)
	for range 20 {
		ticket := mustTicket(t, s, p)
		var won atomic.Int32
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 50 {
			wg.Go(func() {
				<-begin
				switch _, err := s.Authenticate(t.Context(), by(ticket)); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ErrTicketInvalid):
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of 50 uses succeeded, want 1", won.Load())
		}
	}
}

// Rows OT-07, C11: a ticket is for one address, one /64 of IPv6, and one certificate; used elsewhere it is burnt.
func TestTicketBinding(t *testing.T) {
	one, other := testCertificate(t, "one"), testCertificate(t, "other")
	addr := netip.MustParseAddr
	for _, tc := range []struct {
		name  string
		cfg   Config
		bind  Binding
		wrong Credentials // not used where any place is right
		right Credentials
	}{
		{
			name:  "address",
			bind:  Binding{Addr: here},
			wrong: Credentials{Remote: there},
			right: Credentials{Remote: addr("::ffff:192.0.2.1")},
		}, {
			name:  "network",
			bind:  Binding{Addr: addr("2001:db8::1")},
			wrong: Credentials{Remote: addr("2001:db8:0:1::1")},
			right: Credentials{Remote: addr("2001:db8::ffff")},
		}, {
			name:  "no address where one is needed",
			bind:  Binding{Addr: here},
			wrong: Credentials{},
			right: Credentials{Remote: here},
		}, {
			name:  "any address",
			cfg:   Config{TicketBind: []string{"client"}},
			bind:  Binding{Addr: here},
			right: Credentials{Remote: there},
		}, {
			name:  "certificate",
			bind:  Binding{Addr: here, CertSHA256: sumOf(one)},
			wrong: Credentials{Remote: here, Certificate: other},
			right: Credentials{Remote: here, Certificate: one},
		}, {
			name:  "no certificate",
			bind:  Binding{Addr: here, CertSHA256: sumOf(one)},
			wrong: Credentials{Remote: here},
			right: Credentials{Remote: here, Certificate: one},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := start(t, tc.cfg)
			mustRegister(t, s, "c1")
			p := mustBasic(t, s, "c1", key)
			ticket := func() string {
				t.Helper()
				ticket, _, err := s.NewTicket(t.Context(), p, tc.bind)
				if err != nil {
					t.Fatal(err)
				}
				return ticket
			}
			tc.right.Ticket = ticket()
			if _, err := s.Authenticate(t.Context(), tc.right); err != nil {
				t.Errorf("from the right place: %v", err)
			}
			if tc.cfg.TicketBind != nil {
				return
			}
			tc.wrong.Ticket = ticket()
			tc.right.Ticket = tc.wrong.Ticket
			_, err := s.Authenticate(t.Context(), tc.wrong)
			wantErr(t, "from the wrong place", err, ErrTicketInvalid, "authentication failed: ticket is invalid")
			_, err = s.Authenticate(t.Context(), tc.right)
			wantErr(t, "burnt", err, ErrTicketInvalid, "authentication failed: ticket is invalid")
		})
	}
}

// Row OT-07: a client has at most 64 tickets that it has not used, then a limit of status 429.
func TestTicketsPerClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(Config{BcryptCost: bcrypt.MinCost}, newMemory(), nil)
		defer s.Close()
		mustRegister(t, s, "c1", "c2")
		p, q := mustBasic(t, s, "c1", key), mustBasic(t, s, "c2", key)
		var all []string
		for range maxTicketsPerClient {
			all = append(all, mustTicket(t, s, p))
		}
		time.Sleep(10 * time.Second)
		_, _, err := s.NewTicket(t.Context(), p, Binding{Addr: here})
		wantLimit(t, "ticket 65", err, "tickets_per_client")
		var limit *LimitError
		if errors.As(err, &limit) && limit.RetryAfter != 50*time.Second {
			t.Errorf("told to wait %v, want 50s", limit.RetryAfter)
		}
		mustTicket(t, s, q) // another client is not concerned
		if _, err := s.Authenticate(t.Context(), by(all[40])); err != nil {
			t.Fatal(err)
		}
		mustTicket(t, s, p) // in the place of the used one
		_, _, err = s.NewTicket(t.Context(), p, Binding{Addr: here})
		wantLimit(t, "ticket 65 again", err, "tickets_per_client")
		time.Sleep(50 * time.Second) // all but one have expired, and were not swept yet
		for range maxTicketsPerClient - 1 {
			mustTicket(t, s, p)
		}
		_, _, err = s.NewTicket(t.Context(), p, Binding{Addr: here})
		wantLimit(t, "ticket 65 after the others expired", err, "tickets_per_client")
	})
}

// The cap on the tickets of all clients, at the limit and above.
func TestTicketsAreBounded(t *testing.T) {
	k, now := newTickets(), time.Now()
	issue := func(client int) error {
		_, err := k.issue(ticketEntry{clientID: fmt.Sprint(client), expires: now.Add(time.Minute)}, now)
		return err
	}
	for i := range maxTickets {
		if err := issue(i / maxTicketsPerClient); err != nil {
			t.Fatal(err)
		}
	}
	wantLimit(t, "one more", issue(-1), "tickets")
	k.revokeClient("0")
	if err := issue(-1); err != nil || len(k.byID) != maxTickets-maxTicketsPerClient+1 {
		t.Errorf("after one client's are gone: %v, %d tickets", err, len(k.byID))
	}
}

// Row OT-07: a ticket is no other credential, and no other credential is a ticket.
func TestTicketIsNothingElse(t *testing.T) {
	s, _ := start(t, Config{AdminKey: "secret"})
	mustRegister(t, s, "c1")
	p := mustBasic(t, s, "c1", key)
	ticket, token := mustTicket(t, s, p), mustLogin(t, s, "c1")
	for _, authorization := range []string{"Bearer " + ticket, basic("c1", ticket), basic("", ticket), ticket} {
		if _, err := s.Authenticate(t.Context(), header(authorization, here)); !errors.Is(err, ErrAuthentication) {
			t.Errorf("the ticket as %.10s…: %v", authorization, err)
		}
	}
	if _, err := s.Login(t.Context(), "c1", ticket, from(here)); !errors.Is(err, ErrAuthentication) {
		t.Errorf("the ticket as a key: %v", err)
	}
	if err := s.Register(t.Context(), "c2", ticket); !errors.Is(err, ErrKeyLong) {
		t.Errorf("a key of the form of a ticket: %v", err)
	}
	if _, _, err := s.Refresh(t.Context(), ticket); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("refresh of a ticket: %v", err)
	}
	secret := ticket[len(ticketPrefix)+ticketIDChars+1:]
	for _, bad := range []string{
		token, key, "secret", ticketPrefix, secret, strings.ToUpper(ticket), ticket + "a", ticket[:len(ticket)-1],
		ticket[:len(ticket)-1] + "~", "rtcdjt_" + ticket[len(ticketPrefix):], " " + ticket[1:],
	} {
		if _, err := s.Authenticate(t.Context(), by(bad)); !errors.Is(err, ErrTicketInvalid) {
			t.Errorf("%.10s… as a ticket: %v", bad, err)
		}
	}
	if _, err := s.Authenticate(t.Context(), Credentials{Authorization: "Bearer " + token, Ticket: ticket, Remote: here}); !errors.Is(err, ErrInvalidHeader) {
		t.Errorf("a ticket and a token: %v", err)
	}
	// None of that used it up: who knows no more than its id cannot burn it.
	got, err := s.Authenticate(t.Context(), by(ticket))
	if err != nil {
		t.Fatalf("the ticket itself: %v", err)
	}
	_, _, err = s.NewTicket(t.Context(), got, Binding{})
	wantErr(t, "a ticket for a ticket", err, ErrUnauthorized, "authentication failed: unauthorized")
	_, _, err = s.NewTicket(t.Context(), Principal{Admin: true}, Binding{})
	wantErr(t, "a ticket for the admin", err, ErrUnauthorized, "authentication failed: unauthorized")
}

// Row OT-07: an ended client's ticket is dead.
func TestTicketOfAnEndedClient(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1")
	ticket := mustTicket(t, s, mustBasic(t, s, "c1", key))
	if err := s.Unregister(context.Background(), "c1"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Authenticate(t.Context(), by(ticket))
	wantErr(t, "ticket", err, ErrTicketInvalid, "authentication failed: ticket is invalid")
	if len(s.tickets.byID) != 0 {
		t.Error("it stays in memory")
	}
}

func FuzzTicket(f *testing.F) {
	k, now := newTickets(), time.Now()
	good, err := k.issue(ticketEntry{clientID: "c1", expires: now.Add(time.Hour)}, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:ticketChars-1] + "_")
	f.Add(ticketPrefix + strings.Repeat("a", ticketChars-len(ticketPrefix)))
	f.Add("")
	f.Fuzz(func(t *testing.T, ticket string) {
		id, secret, err := parseTicket(ticket)
		if err != nil {
			if !errors.Is(err, ErrTicketInvalid) || secret != "" {
				t.Fatalf("error %v with %q", err, secret)
			}
		} else if ticket != ticketPrefix+ticketIDEncoding.EncodeToString(id[:])+"_"+secret {
			t.Fatalf("%q has a second form", ticket)
		}
		k := newTickets() // a store that knows one ticket gives it to nobody else
		if _, err := k.take(ticket, now); err == nil {
			t.Fatalf("%q was taken", ticket)
		}
	})
}
