package report

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
)

// A record that went to another process tells the same there, goes on there, and is bounded.
func TestRecordCrosses(t *testing.T) {
	r := large(5, 4000, "call")
	r.Sessions[0].Left, r.Sessions[1].Left = r.Started+1000, r.Started+500
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > r.Size()*3/2 {
		t.Errorf("%d bytes become %d", r.Size(), len(body))
	}
	got := new(Record)
	if err := json.Unmarshal(body, got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r.Open(r.Ended), got.Open(r.Ended)) {
		t.Error("the record has changed")
	}
	random := rand.New(rand.NewPCG(7, 8))
	for k := range int64(500) {
		s := busy(r.Ended/1000+1+k, random)
		for _, one := range []*Record{r, got} {
			one.Sessions[2].Recorder.Add(&s)
		}
	}
	if !reflect.DeepEqual(r.Open(0), got.Open(0)) {
		t.Error("it does not go on as the other one")
	}

	most := r.Size() - 2*MaxRecorder + 4<<10
	got.Trim(most)
	if got.Size() > most || got.Omitted != len(r.Sessions)-len(got.Sessions) || got.Omitted < 1 || got.Sessions[0].ID == "callb" {
		t.Errorf("of %d bytes %d are left, and %d sessions", most, got.Size(), len(got.Sessions))
	}
	if got.Trim(0); len(got.Sessions) != 0 || got.Omitted != 5 {
		t.Error("not all has gone")
	}
	for _, bad := range []string{`{"Tiers":[{"Full":["/////////////////w=="]}]}`, `{"Tiers":[{"Open":"gA=="}]}`} {
		rec := new(Recorder)
		if err := json.Unmarshal([]byte(bad), rec); err != nil {
			t.Fatal(err)
		}
		if n := len(rec.Points()); n > 20 { // and it comes to an end
			t.Errorf("%d points of %s", n, bad)
		}
	}
}
