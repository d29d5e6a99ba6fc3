package service_test

import (
	"fmt"
	"net/http"
	"testing"
)

// TestRotationsWithGrace shows OT-03 and fair share: a client has eight times of grace at once, which is
// remembered for each, and then rotates without one or not at all; another client has its own.
func TestRotationsWithGrace(t *testing.T) {
	s := start(t, nil, withAdmin)
	operator := s.operator(t)
	rotate := func(i, grace int) string {
		return fmt.Sprintf(`{"authKey":"key number %d, which is long enough to be one","graceSeconds":%d}`, i, grace)
	}
	for _, id := range []string{"c1", "other"} {
		operator.must(http.StatusCreated, "POST", "/admin/clients", fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key))
		for i := range 8 {
			operator.must(http.StatusOK, "POST", "/admin/clients/"+id+"/rotate", rotate(i, 3600))
		}
		operator.refused(http.StatusTooManyRequests, "limit_graces_per_client", "POST", "/admin/clients/"+id+"/rotate", rotate(8, 3600))
	}
	mine := s.as(t, "c1", "key number 7, which is long enough to be one") // the key is what it was
	mine.must(http.StatusOK, "PUT", "/clients/self/key", rotate(9, 0))
	mine.must(http.StatusUnauthorized, "PUT", "/clients/self/key", rotate(10, 0))
	// What was refused for other reasons has begun no time of grace.
	for range 9 {
		operator.must(http.StatusNotFound, "POST", "/admin/clients/nobody/rotate", rotate(0, 1))
	}
}
