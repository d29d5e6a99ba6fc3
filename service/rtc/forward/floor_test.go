package forward

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// meeting is a call of which a few voices are forwarded, and someone who hears them all.
type meeting struct {
	*rig
	speakers []*endpoint
	pubs     []*Publication
	listener *endpoint
	ssrcs    []uint32 // of the listener's subscriptions
	sent     [][]*rtp.Packet
	level    []uint8
	heardOf  []map[int]bool // indices of sent that were heard, by speaker
	next     []uint16       // number that the listener is to hear next
}

func newMeeting(t *testing.T, n, places int) *meeting {
	m := &meeting{rig: newRig(t)}
	floor := NewFloor(places)
	m.listener = m.endpoint(gcm)
	for range n {
		s := m.endpoint(gcm)
		pub := s.publish(PublicationConfig{Floor: floor})
		ssrc := m.listener.peer.NewSSRC()
		m.listener.subscribeAs(pub, SubscriptionConfig{SSRC: ssrc, PayloadType: 96})
		m.speakers, m.pubs, m.ssrcs = append(m.speakers, s), append(m.pubs, pub), append(m.ssrcs, ssrc)
		m.heardOf = append(m.heardOf, make(map[int]bool))
	}
	m.sent, m.next, m.level = make([][]*rtp.Packet, n), make([]uint16, n), bytes.Repeat([]byte{127}, n)
	return m
}

// talk lets all voices send for a time, each at its level, and returns how many packets of each were
// heard. It checks that those come without a gap in their numbers, with the timestamp they were sent
// with.
func (m *meeting) talk(d time.Duration) (heard []int) {
	m.t.Helper()
	heard = make([]int, len(m.speakers))
	for ; d > 0; d -= 20 * time.Millisecond {
		for i, s := range m.speakers {
			if m.level[i] > 127 { // is not there
				continue
			}
			p := s.next(m.level[i])
			m.sent[i] = append(m.sent[i], p)
			m.read.Receive(s.seal(p), s.path)
		}
		m.flush()
		m.advance(20 * time.Millisecond)
		now := 0
		for _, p := range m.listener.heard() {
			i := slices.Index(m.ssrcs, p.SSRC)
			n := len(m.sent[i])
			if want := m.sent[i][n-1]; !bytes.Equal(p.Payload, want.Payload) || p.Timestamp != want.Timestamp {
				m.t.Fatalf("voice %d: what is heard is not its newest packet", i)
			}
			if m.next[i] != 0 && p.SequenceNumber != m.next[i] {
				m.t.Fatalf("voice %d: number %d, want %d", i, p.SequenceNumber, m.next[i])
			}
			m.next[i] = p.SequenceNumber + 1
			heard[i]++
			now++
		}
		if now > 2 {
			m.t.Fatalf("%d voices at a time, want 2 at most", now)
		}
	}
	return heard
}

func TestLoudestVoicesPass(t *testing.T) {
	m := newMeeting(t, 6, 2)
	m.level = []uint8{30, 35, 60, 70, 127, 127}
	m.talk(2 * time.Second)
	if got := m.talk(time.Second); !slices.Equal(got, []int{50, 50, 0, 0, 0, 0}) {
		t.Errorf("heard %v, want the first two", got)
	}
	if n := m.drops(DropQuiet); n == 0 {
		t.Error("no packets counted as quiet")
	}
	// Another one becomes the loudest: it is heard soon.
	m.level = []uint8{30, 127, 60, 20, 127, 127}
	got := m.talk(time.Second)
	if got[3] < 30 || got[0] != 50 {
		t.Errorf("heard %v, want the fourth instead of the second soon", got)
	}
	// And back again: the numbers go on where they were.
	for range 5 {
		m.level = []uint8{127, 30, 60, 127, 127, 20}
		m.talk(2 * time.Second)
		m.level = []uint8{30, 127, 20, 70, 20, 127}
		m.talk(2 * time.Second)
	}
	if got := m.talk(time.Second); got[2] != 50 || got[4] != 50 {
		t.Errorf("heard %v, want the third and fifth", got)
	}
}

func TestMutedVoicesHoldNoPlace(t *testing.T) {
	m := newMeeting(t, 3, 2)
	m.level = []uint8{30, 30, 60}
	m.talk(2 * time.Second)
	if got := m.talk(time.Second); !slices.Equal(got, []int{50, 50, 0}) {
		t.Fatalf("heard %v, want the first two", got)
	}
	m.pubs[0].SetMuted(true)
	if got := m.talk(time.Second); got[0] != 0 || got[1] != 50 || got[2] < 48 {
		t.Errorf("heard %v, want the third in the place of the first at once", got)
	}
	m.level[0] = 10
	m.talk(2 * time.Second)
	m.pubs[0].SetMuted(false)
	if got := m.talk(time.Second); got[0] < 40 {
		t.Errorf("heard %v, want the first again, as it is the loudest", got)
	}
}

func TestClosingGivesThePlaceBack(t *testing.T) {
	for name, leave := range map[string]func(m *meeting){
		"publication": func(m *meeting) { m.pubs[0].Close() },
		"peer":        func(m *meeting) { m.speakers[0].peer.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMeeting(t, 3, 2)
			m.level = []uint8{30, 30, 60}
			m.talk(3 * time.Second)
			leave(m)
			m.level[0] = 128
			if got := m.talk(time.Second); got[0] != 0 || got[1] != 50 || got[2] < 48 {
				t.Errorf("heard %v, want the third in the place of the first at once", got)
			}
		})
	}
}

// Who stops sending is as good as silent.
func TestVoicesThatAreGoneHoldNoPlaceForLong(t *testing.T) {
	m := newMeeting(t, 3, 2)
	m.level = []uint8{30, 30, 60}
	m.talk(3 * time.Second)
	m.level[0] = 128
	m.talk(1600 * time.Millisecond)
	if got := m.talk(time.Second); got[2] != 50 {
		t.Errorf("heard %v, want the third in the place of the first", got)
	}
}

// The speech detector hears all of them, so that it is known who speaks.
func TestVoicesThatDoNotPassAreListenedTo(t *testing.T) {
	r := newRig(t)
	floor := NewFloor(1)
	loud, quiet := r.endpoint(gcm), r.endpoint(gcm)
	loud.publish(PublicationConfig{Floor: floor})
	spoke := false
	quiet.publish(PublicationConfig{Floor: floor, OnVoice: func(on bool) { spoke = spoke || on }})
	for i := range 120 {
		loud.push(loud.seal(loud.next(10)))
		quiet.push(quiet.seal(quiet.next(uint8(60 + i%2*40))))
		r.advance(20 * time.Millisecond)
	}
	if !spoke || r.drops(DropQuiet) < 100 {
		t.Errorf("voice %v, %d packets dropped, want the voice on though it does not pass", spoke, r.drops(DropQuiet))
	}
}
