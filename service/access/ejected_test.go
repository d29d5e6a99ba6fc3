package access_test

import (
	"fmt"
	"slices"
	"testing"

	"rtcd/service/access"
)

// A call knows 10,000 who were ejected. With one more nobody enters it again, rather than one of those.
//
// Limits: ejected_per_call.
func TestEjectedAreBounded(t *testing.T) {
	const most = 10_000
	var hit []string
	s := newService(access.Config{OnLimit: func(limit string) { hit = append(hit, limit) }}, nil)
	call, other := create(t, s, "a", access.CallOptions{}), create(t, s, "a", access.CallOptions{})
	eject := func(i int) {
		t.Helper()
		session := fmt.Sprint("s", i)
		admitted(t, s, "a", join(call, fmt.Sprint("u", i), session, ""))
		if !s.Eject("a", call, session) {
			t.Fatalf("%s was not ejected", session)
		}
		s.Left("a", call, session)
	}
	for i := range most {
		eject(i)
	}
	if hit != nil {
		t.Fatalf("%d ejected: hit %v", most, hit)
	}
	eject(most)
	if !slices.Equal(hit, []string{access.LimitEjected}) {
		t.Errorf("%d ejected: hit %v", most+1, hit)
	}
	for _, user := range []string{"u0", fmt.Sprint("u", most), "innocent"} {
		_, err := s.Admit("a", here, join(call, user, "again-"+user, ""))
		refused(t, user, err, access.ErrEjected)
	}
	admitted(t, s, "a", join(other, "innocent", "elsewhere", ""))
}
