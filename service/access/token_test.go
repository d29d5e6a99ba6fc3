package access_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/access"
	"rtcd/service/api/wire"
)

// TestTokensAreRandom shows OT-14: of 10,000 tokens none repeats, and none of their 256 bits leans to
// either side.
func TestTokensAreRandom(t *testing.T) {
	const n = 10_000
	s := newService(access.Config{TokensPerMinute: n}, nil)
	call := create(t, s, "a", access.CallOptions{})
	seen := make(map[string]bool)
	ids := make(map[string]bool)
	var ones [256]int
	for i := range n {
		token := mint(t, s, "a", call, access.TokenRequest{UserID: fmt.Sprint(i)})
		rest, ok := strings.CutPrefix(token.Token, "rtcdjt_"+token.ID+"_")
		secret, err := base64.RawURLEncoding.DecodeString(rest)
		if !ok || err != nil || len(secret) != 32 {
			t.Fatalf("token is not of its form: %v", err)
		}
		if seen[rest] || ids[token.ID] {
			t.Fatal("a token repeats")
		}
		seen[rest], ids[token.ID] = true, true
		for b := range ones {
			ones[b] += int(secret[b/8]>>(b%8)) & 1
		}
	}
	// Binomial: six standard deviations; of a fair source one run in two million would fail.
	limit := 6 * math.Sqrt(n) / 2
	for b, k := range ones {
		if math.Abs(float64(k)-n/2) > limit {
			t.Errorf("bit %d is set in %d of %d tokens", b, k, n)
		}
	}
	_, err := s.Mint("a", call, access.TokenRequest{UserID: "one more", TTL: 1})
	refused(t, "token 10,001 of a call", err, access.ErrTooMany)
}

// TestWrongTokens shows OT-14: what is no token of the call is refused in one way, whatever is wrong
// with it and whether or not the call exists, with the same work done; the empty one never matches.
func TestWrongTokens(t *testing.T) {
	ids := &usedIDs{}
	s := newService(access.Config{RequireJoinToken: true, WrongTokensPerMinute: 1000}, ids)
	call := create(t, s, "a", access.CallOptions{})
	good := mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token
	flipped := []byte(good)
	flipped[len(flipped)-10] ^= 1
	wrong := map[string]string{
		"flipped":       string(flipped),
		"prefix alone":  "rtcdjt_",
		"no secret":     good[:len("rtcdjt_")+27],
		"short secret":  good[:len(good)-1],
		"long secret":   good + "A",
		"other kind":    "rtcdwt_" + good[len("rtcdjt_"):],
		"no prefix":     good[len("rtcdjt_"):],
		"blank":         " ",
		"blank after":   good + " ",
		"upper case":    strings.ToUpper(good),
		"made up":       "rtcdjt_" + strings.Repeat("a", 26) + "_" + strings.Repeat("A", 43),
		"zero bytes":    strings.Repeat("\x00", len(good)),
		"secret of NUL": good[:len("rtcdjt_")+27] + strings.Repeat("\x00", 43),
	}
	for name, token := range wrong {
		for _, group := range []string{"a", "b"} {
			for _, where := range []string{call, "no such call"} {
				before := ids.asked
				g, err := s.Admit(group, here, join(where, "u", "s", token))
				if !reflect.DeepEqual(err, error(access.ErrTokenInvalid)) || !reflect.DeepEqual(g, access.Grant{}) {
					t.Errorf("%s, group %s, call %q: got %+v, %v", name, group, where, g, err)
				}
				if ids.asked != before+1 {
					t.Errorf("%s, group %s, call %q: %d look-ups", name, group, where, ids.asked-before)
				}
			}
		}
	}
	for _, where := range []string{call, "no such call"} {
		_, err := s.Admit("a", here, join(where, "u", "s", ""))
		if !reflect.DeepEqual(err, error(access.ErrTokenRequired)) {
			t.Errorf("no token, call %q: %v", where, err)
		}
	}
	if _, err := s.Admit("a", here, join(call, "u", "s", good)); err != nil {
		t.Errorf("the token itself: %v", err)
	}
}

// TestWrongTokenTime shows OT-14: a wrong token takes as long for a call that exists as for one that
// does not.
func TestWrongTokenTime(t *testing.T) {
	s := newService(access.Config{WrongTokensPerMinute: math.MaxInt}, nil)
	call := create(t, s, "a", access.CallOptions{})
	good := mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token
	wrong := good[:len(good)-4] + "0000"
	const rounds, each = 60, 200
	least := map[string]time.Duration{call: math.MaxInt64, "missing": math.MaxInt64}
	for range rounds { // interleaved, so that both meet the same machine
		for where := range least {
			began := time.Now()
			for range each {
				if _, err := s.Admit("a", here, join(where, "u", "s", wrong)); err == nil {
					t.Fatal("admitted")
				}
			}
			least[where] = min(least[where], time.Since(began))
		}
	}
	ratio := float64(least[call]) / float64(least["missing"])
	t.Logf("existing %v, missing %v: ratio %.3f", least[call]/each, least["missing"]/each, ratio)
	// The least time is what the code takes; the rest is the machine's. Twice would mean another path.
	if ratio > 1.5 || ratio < 1/1.5 {
		t.Errorf("existing %v, missing %v", least[call], least["missing"])
	}
}

// TestWrongTokensAreCounted shows OT-14: after ten wrong tokens in a minute an address is told to
// wait, others are not, and a good token is still good.
func TestWrongTokensAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		s := newService(access.Config{OnLimit: func(limit string) {
			if hits++; limit != access.LimitWrongTokens {
				t.Errorf("hit %s", limit)
			}
		}}, nil)
		call := create(t, s, "a", access.CallOptions{})
		try := func(from string, want error) {
			t.Helper()
			_, err := s.Admit("a", netip.MustParseAddr(from), join(call, "u", "s", "rtcdjt_wrong"))
			refused(t, from, err, want)
		}
		for range 10 {
			try("192.0.2.1", access.ErrTokenInvalid)
		}
		try("192.0.2.1", access.ErrRateLimited)
		try("::ffff:192.0.2.1", access.ErrRateLimited) // the same address
		try("192.0.2.2", access.ErrTokenInvalid)
		for range 10 {
			try("2001:db8::1", access.ErrTokenInvalid)
		}
		try("2001:db8::ffff", access.ErrRateLimited) // the same network
		try("2001:db8:0:1::1", access.ErrTokenInvalid)

		token := mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token
		admitted(t, s, "a", join(call, "u", "s", token)) // comes from 192.0.2.1, too
		_, err := s.Admit("a", here, join(call, "u", "s2", "rtcdjt_wrong"))
		var refusal *access.Error
		if !errors.As(err, &refusal) || refusal.Status() != http.StatusTooManyRequests || refusal.RetryAfter() <= 0 {
			t.Errorf("got %v", err)
		}
		if hits != 4 {
			t.Errorf("told of %d hits of the limit, want 4", hits)
		}
		time.Sleep(time.Minute)
		try("192.0.2.1", access.ErrTokenInvalid)
	})
}

// TestTokenIsForOneCallAndUser shows TK-03: a token is good for its call, client and user alone, and
// in its role; what is refused uses nothing up.
func TestTokenIsForOneCallAndUser(t *testing.T) {
	s := newService(access.Config{WrongTokensPerMinute: 1000}, nil)
	x, y := create(t, s, "a", access.CallOptions{}), create(t, s, "a", access.CallOptions{})
	other := create(t, s, "b", access.CallOptions{})
	admitted(t, s, "b", join(x, "u", "s", "")) // b has a call of that id, too
	token := mint(t, s, "a", x, access.TokenRequest{UserID: "u", Role: wire.RoleSubscriber, Data: "d-1"}).Token

	for _, c := range []struct {
		group string
		j     wire.Join
	}{
		{"a", join(y, "u", "s1", token)}, {"a", join("missing", "u", "s1", token)},
		{"b", join(x, "u", "s1", token)}, {"b", join(other, "u", "s1", token)}, {"c", join(x, "u", "s1", token)},
	} {
		g, err := s.Admit(c.group, here, c.j)
		if !reflect.DeepEqual(err, error(access.ErrTokenInvalid)) || !reflect.DeepEqual(g, access.Grant{}) {
			t.Errorf("%s in %s: got %+v, %v", c.group, c.j.CallID, g, err)
		}
	}
	_, err := s.Admit("a", here, join(x, "somebody else", "s1", token))
	refused(t, "another user", err, access.ErrTokenMismatch)
	for _, role := range []wire.CallRole{wire.RolePublisher, wire.RolePublisherOnly, wire.RoleModerator} {
		j := join(x, "u", "s1", token)
		j.Role = role
		_, err = s.Admit("a", here, j)
		refused(t, "role "+string(role), err, access.ErrTokenMismatch)
	}
	j := join(x, "u", "s1", token)
	j.Role = "king"
	_, err = s.Admit("a", here, j)
	refused(t, "no role", err, access.ErrRoleUnknown)

	j.Role = wire.RoleSubscriber
	g := admitted(t, s, "a", j)
	if g.Role != wire.RoleSubscriber || g.Data != "d-1" || !g.Managed || g.TokenID == "" || !strings.Contains(token, g.TokenID) {
		t.Errorf("got %+v", g)
	}
}

// TestTokenRole shows that a token's role holds when the join names none, and that of publisher there
// are two names (TK-24: the token wins).
func TestTokenRole(t *testing.T) {
	s := newService(access.Config{}, nil)
	call := create(t, s, "a", access.CallOptions{})
	for i, c := range []struct{ token, asked, want wire.CallRole }{
		{"", "", ""}, {"", "publisher", ""}, {"publisher", "", ""}, {"publisher", "publisher", ""},
		{"subscriber", "", "subscriber"}, {"publisheronly", "", "publisheronly"}, {"moderator", "moderator", "moderator"},
	} {
		user := fmt.Sprint(i)
		j := join(call, user, user, mint(t, s, "a", call, access.TokenRequest{UserID: user, Role: c.token}).Token)
		j.Role = c.asked
		if g := admitted(t, s, "a", j); g.Role != c.want {
			t.Errorf("token %q, asked %q: got %q, want %q", c.token, c.asked, g.Role, c.want)
		}
	}
}

// TestTokenExpires shows TK-04: a token is good until its time and not after it, and who has joined
// stays.
func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(access.Config{}, nil)
		call := create(t, s, "a", access.CallOptions{})
		early := mint(t, s, "a", call, access.TokenRequest{UserID: "u1", TTL: 60}).Token
		late := mint(t, s, "a", call, access.TokenRequest{UserID: "u2", TTL: 60})
		if want := time.Now().Add(time.Minute); !late.Expires.Equal(want) {
			t.Errorf("expires %v, want %v", late.Expires, want)
		}
		time.Sleep(time.Minute - 1)
		admitted(t, s, "a", join(call, "u1", "s1", early))
		time.Sleep(time.Nanosecond)
		_, err := s.Admit("a", here, join(call, "u2", "s2", late.Token))
		refused(t, "expired", err, access.ErrTokenInvalid)
		if info, _ := s.Info("a", call); info.Tokens != 0 || info.Pending {
			t.Errorf("got %+v", info)
		}
		if !s.Eject("a", call, "s1") {
			t.Error("the session of an expired token is not in any more")
		}
	})
}

// TestTokenLifetime shows TK-04: a time to live outside of 1 s to 24 h is refused.
func TestTokenLifetime(t *testing.T) {
	s := newService(access.Config{}, nil)
	call := create(t, s, "a", access.CallOptions{})
	for ttl, ok := range map[int64]bool{
		0: false, -1: false, 1e12: false, math.MaxInt64: false, math.MinInt64: false, 86_401: false, 1: true, 86_400: true,
	} {
		_, err := s.Mint("a", call, access.TokenRequest{UserID: "u", TTL: ttl})
		if ok != (err == nil) || !ok && !errors.Is(err, access.ErrBadRequest) {
			t.Errorf("ttl %d: %v", ttl, err)
		}
	}
	for uses, ok := range map[int]bool{-1: false, 0: true, 1: true, 1000: true, 1001: false, math.MaxInt: false} {
		_, err := s.Mint("a", call, access.TokenRequest{UserID: "u", TTL: 1, MaxUses: uses})
		if ok != (err == nil) || !ok && !errors.Is(err, access.ErrBadRequest) {
			t.Errorf("%d uses: %v", uses, err)
		}
	}
	for _, user := range []string{"", "a\x00", strings.Repeat("x", 129), "\xff"} {
		_, err := s.Mint("a", call, access.TokenRequest{UserID: user, TTL: 1})
		refused(t, fmt.Sprintf("user %.10q", user), err, access.ErrBadRequest)
	}
	_, err := s.Mint("a", call, access.TokenRequest{UserID: "u", TTL: 1, Role: "king"})
	refused(t, "role", err, access.ErrRoleUnknown)
}

// TestTokenUses shows TK-04 and C18, that once means atomic: of 50 joins at once with one token as many come in as it has uses; the
// sessions that are in need none to go on, and a use that came to nothing is given back.
func TestTokenUses(t *testing.T) {
	for _, uses := range []int{1, 7} {
		s := newService(access.Config{WrongTokensPerMinute: 1000}, nil)
		call := create(t, s, "a", access.CallOptions{})
		token := mint(t, s, "a", call, access.TokenRequest{UserID: "u", MaxUses: uses}).Token
		var in atomic.Int32
		var grants sync.Map
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				g, err := s.Admit("a", here, join(call, "u", fmt.Sprint(i), token))
				if err == nil {
					in.Add(1)
					grants.Store(i, g)
				} else if !errors.Is(err, access.ErrTokenInvalid) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if int(in.Load()) != uses {
			t.Fatalf("%d joined with a token of %d uses", in.Load(), uses)
		}
		var one int
		var grant access.Grant
		grants.Range(func(k, v any) bool {
			one, grant = k.(int), v.(access.Grant)
			return false
		})
		again := admitted(t, s, "a", join(call, "u", fmt.Sprint(one), token)) // a duplicate of one that is in
		s.Undo(again)                                                         // takes nothing back
		_, err := s.Admit("a", here, join(call, "u", "later", token))
		refused(t, "one use too many", err, access.ErrTokenInvalid)
		s.Undo(grant)
		s.Undo(grant) // once
		admitted(t, s, "a", join(call, "u", "later", token))
		_, err = s.Admit("a", here, join(call, "u", "last", token))
		refused(t, "one use too many", err, access.ErrTokenInvalid)
	}
}

// TestTokensPerMinute shows TK-05: a client that makes too many tokens is told when to go on; others
// are not concerned. Of calls that it does not have it makes none.
func TestTokensPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hit []string
		s := newService(access.Config{OnLimit: func(limit string) { hit = append(hit, limit) }}, nil)
		call, other := create(t, s, "a", access.CallOptions{}), create(t, s, "b", access.CallOptions{})
		one := access.TokenRequest{UserID: "u", TTL: 1}
		for range 600 {
			mint(t, s, "a", call, one)
		}
		_, err := s.Mint("a", call, one)
		var refusal *access.Error
		if !errors.As(err, &refusal) || refusal.Reason() != "rate_limited" || refusal.RetryAfter() != 100*time.Millisecond {
			t.Fatalf("token 601: %v", err)
		}
		mint(t, s, "b", other, one)
		time.Sleep(refusal.RetryAfter())
		mint(t, s, "a", call, one)
		_, err = s.Mint("a", call, one)
		refused(t, "one more", err, access.ErrRateLimited)
		if !slices.Equal(hit, []string{access.LimitTokensPerMinute, access.LimitTokensPerMinute}) {
			t.Errorf("limits told of: %q", hit)
		}

		for _, c := range [][2]string{{"a", other}, {"a", "missing"}, {"b", call}, {"c", call}, {"c", ""}} {
			_, err := s.Mint(c[0], c[1], access.TokenRequest{}) // nothing else about it is looked at
			if !reflect.DeepEqual(err, error(access.ErrNotFound)) {
				t.Errorf("%s for %s: %v", c[0], c[1], err)
			}
		}
	})
}

// TestTokensAreBounded shows that tokens that have expired make room, and that a client may have no
// more than its share, nor all of them together more than there is room for.
func TestTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hit []string
		s := newService(access.Config{
			TokensPerCall: 3, TokensPerClient: 4, Tokens: 6, ManagedCallsPerClient: 2,
			OnLimit: func(limit string) { hit = append(hit, limit) },
		}, nil)
		x, y := create(t, s, "a", access.CallOptions{}), create(t, s, "a", access.CallOptions{})
		one := access.TokenRequest{UserID: "u", TTL: 10}
		for range 3 {
			mint(t, s, "a", x, one)
		}
		_, err := s.Mint("a", x, one)
		refused(t, "token 4 of a call", err, access.ErrTooMany)
		mint(t, s, "a", y, one)
		_, err = s.Mint("a", y, one)
		refused(t, "token 5 of a client", err, access.ErrTooMany)
		z := create(t, s, "b", access.CallOptions{})
		mint(t, s, "b", z, one)
		mint(t, s, "b", z, one)
		_, err = s.Mint("b", z, one)
		refused(t, "token 7 of all", err, access.ErrTooMany)
		_, err = s.Create(t.Context(), "a", access.CallOptions{})
		refused(t, "call 3 of a client", err, access.ErrTooMany)
		want := []string{access.LimitTokensPerCall, access.LimitTokensPerClient, access.LimitTokens, access.LimitManagedPerClient}
		if !slices.Equal(hit, want) {
			t.Errorf("limits told of: %q, want %q", hit, want)
		}
		time.Sleep(10 * time.Second)
		mint(t, s, "a", x, one)
	})
}

// TestTokenData shows TK-06: what a token says to everybody in the call is not personal.
func TestTokenData(t *testing.T) {
	for policy, cases := range map[access.DataPolicy]map[string]error{
		access.DataOpaque: {
			"": nil, "AZaz09._~-": nil, strings.Repeat("x", 128): nil,
			strings.Repeat("x", 129): access.ErrBadRequest, "a\x00": access.ErrBadRequest,
			"alice@x.org": access.ErrPersonalData, "+41 79 123 45 67": access.ErrPersonalData, "Alice B": access.ErrPersonalData,
			"ü": access.ErrPersonalData,
		},
		access.DataText: {
			"": nil, "übung:1": nil, "id=12/34": nil, strings.Repeat("x", 1000): nil,
			strings.Repeat("x", 1001): access.ErrBadRequest, "a\x00": access.ErrBadRequest, "\xff": access.ErrBadRequest,
			"alice@x.org": access.ErrPersonalData, "+41 79 123 45 67": access.ErrPersonalData, "Alice B": access.ErrPersonalData,
			"+41791234567": access.ErrPersonalData, "tel:079-123-45-67": access.ErrPersonalData, "a\u00a0b": access.ErrPersonalData,
		},
		access.DataDeny: {"": nil, "x": access.ErrBadRequest},
	} {
		s := newService(access.Config{TokenData: policy}, nil)
		call := create(t, s, "a", access.CallOptions{})
		for data, want := range cases {
			_, err := s.Mint("a", call, access.TokenRequest{UserID: "u", TTL: 1, Data: data})
			if want == nil && err != nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: %.20q: got %v, want %v", policy, data, err, want)
			}
			if err != nil && len(data) > 3 && strings.Contains(err.Error(), data) {
				t.Errorf("%s: the error shows the data", policy)
			}
		}
	}
}

// FuzzAdmit shows WX-22 for tokens: none that was not made lets anybody in, and nothing panics.
func FuzzAdmit(f *testing.F) {
	s := newService(access.Config{WrongTokensPerMinute: math.MaxInt}, nil)
	id, err := s.Create(f.Context(), "a", access.CallOptions{})
	if err != nil {
		f.Fatal(err)
	}
	token, err := s.Mint("a", id, access.TokenRequest{UserID: "u", TTL: 60, MaxUses: 1000})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.Token, "u", "s", "")
	f.Add(token.Token[:50], "u", "s", "subscriber")
	f.Add("rtcdjt_", "\xff", "", "king")
	f.Fuzz(func(t *testing.T, text, user, session, role string) {
		if text == "" {
			return
		}
		g, err := s.Admit("a", there, wire.Join{CallID: id, UserID: user, SessionID: session, Token: text, Role: wire.CallRole(role)})
		if err == nil {
			s.Undo(g)
			if text != token.Token || user != "u" || role != "" && role != "publisher" {
				t.Fatalf("admitted %q of %q as %q", session, user, role)
			}
			return
		}
		var refusal *access.Error
		if !errors.As(err, &refusal) || len(err.Error()) > 200 || len(text) > 8 && strings.Contains(err.Error(), text) {
			t.Fatalf("error %.300v", err)
		}
	})
}
