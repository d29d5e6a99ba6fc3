package main

import (
	"strings"
	"testing"
)

// One shares at a time; everybody is told who, latecomers too.
func TestShare(t *testing.T) {
	r := newRig(t, false)
	ann, _ := r.enter("lobby", "Ann")
	bob, _ := r.enter("lobby", "Bob")
	ann.next() // Bob came
	_, eve := r.enter("elsewhere", "Eve")

	sharer := func(b *browser, want string) {
		t.Helper()
		if n := b.next(); n.Type != "screen" || n.ID != want {
			t.Errorf("got %s, want that %q shares", text(n), want)
		}
	}
	ann.send(`{"type":"screen-on","data":{"stream":"{5e-1}"}}`)
	r.want("rtc " + ann.id + ` 5 {"screenStreamID":"{5e-1}"}`)
	sharer(ann, ann.id)
	sharer(bob, ann.id)
	bob.send(`{"type":"screen-on","data":{"stream":"b"}}`) // too late
	sharer(bob, ann.id)
	bob.send(`{"type":"screen-off"}`) // is not his to end
	cid, welcome := r.enter("lobby", "Cid")
	if welcome.Sharer != ann.id || eve.Sharer != "" {
		t.Errorf("Cid hears that %q shares, Eve that %q does", welcome.Sharer, eve.Sharer)
	}
	ann.next() // Cid came
	bob.next()

	ann.send(`{"type":"screen-off"}`)
	r.want("rtc " + ann.id + " 6 ")
	for _, b := range []*browser{ann, bob, cid} {
		sharer(b, "")
	}
	bob.send(`{"type":"screen-on","data":{"stream":"b"}}`)
	r.want("rtc " + bob.id + ` 5 {"screenStreamID":"b"}`)
	sharer(ann, bob.id)
	bob.closeInOrder()
	r.want("leave " + bob.id)
	sharer(ann, "")
	if n := ann.next(); n.Type != "left" || n.ID != bob.id {
		t.Errorf("leaving: Ann hears %s", text(n))
	}
}

func TestCamera(t *testing.T) {
	r := newRig(t, false)
	ann, _ := r.enter("lobby", "Ann")
	bob, _ := r.enter("lobby", "Bob")
	ann.next() // Bob came
	for _, on := range []bool{true, false, true} {
		if on {
			ann.send(`{"type":"video-on","data":{"stream":"c"}}`)
			r.want("rtc " + ann.id + ` 9 {"videoStreamID":"c"}`)
		} else {
			ann.send(`{"type":"video-off"}`)
			r.want("rtc " + ann.id + " 10 ")
		}
		if n := bob.next(); n.Type != "person" || n.Person.ID != ann.id || n.Person.Camera != on {
			t.Errorf("camera %v: Bob hears %s", on, text(n))
		}
	}
}

// Others hear in which layers a browser sends, latecomers too. What makes no sense ends it.
func TestLayers(t *testing.T) {
	r := newRig(t, false)
	ann, _ := r.enter("lobby", "Ann")
	bob, _ := r.enter("lobby", "Bob")
	ann.next() // Bob came
	const layers = `{"video":[{"rid":"h","height":720,"fps":0},{"rid":"l","height":180,"fps":0}],"screen":[{"rid":"h","height":1080,"fps":20}]}`
	ann.send(`{"type":"layers","data":` + layers + `}`)
	for _, b := range []*browser{ann, bob} {
		if n := b.next(); n.Type != "person" || n.Person.ID != ann.id || string(n.Person.Layers) != layers {
			t.Errorf("got %s, want Ann's layers", text(n))
		}
	}
	if _, welcome := r.enter("lobby", "Cid"); string(welcome.People[0].Layers) != layers {
		t.Errorf("Cid hears %s", text(welcome))
	}
	for _, bad := range []string{
		`1`, `{"video":1}`, `{"video":[{"rid":"<b>","height":720}]}`, `{"video":[{"rid":"h"}]}`, `{"video":[{"rid":"h","height":16385}]}`,
		`{"screen":[{"rid":"h","height":720,"fps":-1}]}`, `{"screen":[` + strings.Repeat(`{"rid":"h","height":720},`, 4) + `{"rid":"h","height":720}]}`,
	} {
		if got, err := parseLayers([]byte(bad)); err == nil {
			t.Errorf("%s is taken for %s", bad, got)
		}
	}
	bob.send(`{"type":"layers","data":{"video":[{"rid":"h"}]}}`)
	bob.wantGone()
}
