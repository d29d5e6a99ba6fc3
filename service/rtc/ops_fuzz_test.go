package rtc_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// FuzzSessionOps has two tenants join, leave, signal, disconnect and end calls under ids that they
// share, in any order, and compares with a model: what one does changes nothing of the other's.
func FuzzSessionOps(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 2, 1, 0, 2, 3, 9, 27})
	f.Add([]byte("joins, leaves and the ends of calls"))
	f.Add([]byte{0, 8, 16, 24, 32, 5, 13, 6, 7, 4, 12, 255, 128, 64})
	b := rtctest.NewBackend(f, func(c *rtc.Config) {
		c.Limits = rtc.Limits{SessionsPerCall: 3, JoinsPerSecond: 1 << 20, JoinsBurst: 1 << 20, RemoteCandidates: 32, MediaSections: 64}
	})
	groups := []string{"one", "two"}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 256 {
			ops = ops[:256]
		}
		model := map[string]map[string]string{"one": {}, "two": {}} // call by session, by tenant
		in := func(g, call string) (n int) {
			for _, c := range model[g] {
				if c == call {
					n++
				}
			}
			return n
		}
		for i, op := range ops {
			// 3 bits say what, 1 who, 2 which session, 1 which call.
			g, session, call := groups[op>>3&1], fmt.Sprint("s", op>>4&3), fmt.Sprint("c", op>>6&1)
			of, has := model[g][session]
			switch op & 7 {
			case 0, 1, 2:
				err := b.Server.Join(g, wire.Join{CallID: call, UserID: "u", SessionID: session})
				if !has && in(g, call) < 3 {
					if err != nil {
						t.Fatalf("op %d: %s joins %s: %v", i, session, call, err)
					}
					model[g][session] = call
				} else if err == nil && (!has || of != call) {
					t.Fatalf("op %d: %s of %s joined %s, is in %q with %d others", i, session, g, call, of, in(g, call))
				}
			case 3:
				b.Server.Leave(g, session)
				delete(model[g], session)
			case 4:
				for s, err := range map[string]error{
					"sdp": b.Server.Signal(g, session, wire.Signal{Type: wire.SignalSDP, Data: ops[i:]}),
					"ice": b.Server.Signal(g, session, wire.Signal{Type: wire.SignalICE, Data: ops[i:]}),
				} {
					if (err == nil) != has {
						t.Fatalf("op %d: %s for a session of %s, there is one: %t: %v", i, s, g, has, err)
					}
				}
			case 5:
				if err := b.Server.Disconnect(g, call, session); (err == nil) != (has && of == call) {
					t.Fatalf("op %d: disconnect %s of %s from %s, is in %q: %v", i, session, g, call, of, err)
				} else if err == nil {
					delete(model[g], session)
				}
			case 6:
				if err := b.Server.EndCall(g, call); (err == nil) != (in(g, call) > 0) {
					t.Fatalf("op %d: end %s of %s, which has %d sessions: %v", i, call, g, in(g, call), err)
				}
				maps.DeleteFunc(model[g], func(_, c string) bool { return c == call })
			case 7:
				b.Server.EndGroup(g)
				clear(model[g])
			}
			agree(t, b.Server, model)
		}
		for _, g := range groups {
			b.Server.EndGroup(g)
			clear(model[g])
		}
		agree(t, b.Server, model)
	})
}

// agree checks that the server has the sessions of the model and no others.
func agree(t *testing.T, s *rtc.Server, model map[string]map[string]string) {
	t.Helper()
	for g, sessions := range model {
		for _, call := range []string{"c0", "c1"} {
			var want, got []string
			for session, c := range sessions {
				if c == call {
					want = append(want, session)
				}
			}
			infos, _ := s.Sessions(g, call)
			for _, info := range infos {
				got = append(got, info.SessionID)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("%s of %s has %v, want %v", call, g, got, want)
			}
		}
	}
}
