package forward

import (
	"fmt"
	"testing"
	"time"
)

// late lets a camera with one watcher send frames, 40 ms apart, from a keyframe on whose first packet
// has that number, and returns one who subscribes then.
func late(t *testing.T, frames int, start uint16, bps ...int) (s *stage, camera *feed, w *watcher, sub *Subscription, fl *flow) {
	t.Helper()
	s = newStage(t)
	camera = s.feed(Camera, bps...)
	s.watcher().watch(camera, true)
	for _, l := range camera.layers {
		l.seq = start - 30*uint16(l.packets)
	}
	for range 30 {
		s.frame(camera)
	}
	for _, l := range camera.layers {
		l.keyframe = true
	}
	for range frames {
		s.frame(camera)
	}
	w = s.watcher()
	sub, fl = w.watch(camera, true)
	return s, camera, w, sub, fl
}

// frame sends the camera's next frame as one batch. Keyframes are asked for in vain.
func (s *stage) frame(f *feed) {
	s.t.Helper()
	f.frame(s.at)
	s.at += 40 * time.Millisecond
	s.advance(40 * time.Millisecond)
	for _, w := range s.views {
		w.see(s.at)
	}
}

// Who subscribes soon after a keyframe gets it and all since at once, and then what comes.
func TestReceiverCatchesUp(t *testing.T) {
	for _, frames := range []int{1, 2, 10, 29} {
		for _, start := range []uint16{1000, 65530, 65470, 65535} {
			t.Run(fmt.Sprintf("%d frames from %d", frames, start), func(t *testing.T) {
				s, camera, w, sub, fl := late(t, frames, start, 800*kilobit)
				per := camera.layers[0].packets
				s.frame(camera)
				if want := (frames + 1) * per; fl.packets != want || fl.keyframes != 1 {
					t.Fatalf("%d packets, %d keyframes at once, want %d from one on", fl.packets, fl.keyframes, want)
				}
				for i := range 20 {
					s.frame(camera)
					if want := (frames + 2 + i) * per; fl.packets != want {
						t.Fatalf("%d packets after %d frames more, want %d", fl.packets, i+1, want)
					}
				}
				// What it caught up with it can ask for again.
				first := fl.seq + 1 - uint16(fl.packets)
				w.nack(sub, first, first+1)
				if got := w.heard(); len(got) != 2 || original(t, got[0]).SequenceNumber != first {
					t.Errorf("%d packets came again, want 2", len(got))
				}
			})
		}
	}
}

// Where catching up is no use, or impossible, a receiver waits for a keyframe.
func TestReceiverThatCannotCatchUp(t *testing.T) {
	for name, join := range map[string]func(t *testing.T) (s *stage, camera *feed, w *watcher, fl *flow){
		"keyframe of long ago": func(t *testing.T) (*stage, *feed, *watcher, *flow) {
			s, camera, w, _, fl := late(t, 33, 1000, 800*kilobit)
			return s, camera, w, fl
		},
		"too many packets": func(t *testing.T) (*stage, *feed, *watcher, *flow) {
			s, camera, w, _, fl := late(t, 28, 1000, 2000*kilobit) // of 10 packets each
			return s, camera, w, fl
		},
		"too many bytes": func(t *testing.T) (*stage, *feed, *watcher, *flow) {
			s := newStage(t)
			camera := s.feed(Camera, 1800*kilobit)
			camera.filler[0] = 1250
			s.watcher().watch(camera, true)
			for range 25 {
				s.frame(camera)
			}
			w := s.watcher()
			_, fl := w.watch(camera, true)
			return s, camera, w, fl
		},
		"incomplete": func(t *testing.T) (*stage, *feed, *watcher, *flow) {
			s := newStage(t)
			camera := s.feed(Camera, 800*kilobit)
			early := s.watcher()
			early.watch(camera, true)
			s.frame(camera)
			s.views = nil // it is not looked at any more, as it misses one
			packets := camera.layers[0].next(s.at)
			for i, p := range packets {
				if sealed := camera.seal(p); i != 1 {
					camera.push(sealed)
				}
			}
			w := s.watcher()
			_, fl := w.watch(camera, true)
			return s, camera, w, fl
		},
		"nobody was there": func(t *testing.T) (*stage, *feed, *watcher, *flow) {
			s := newStage(t)
			camera := s.feed(Camera, 800*kilobit)
			s.frame(camera)
			w := s.watcher()
			_, fl := w.watch(camera, true)
			return s, camera, w, fl
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, camera, _, fl := join(t)
			for range 10 {
				s.frame(camera)
			}
			if fl.packets != 0 {
				t.Fatalf("%d packets came without a keyframe", fl.packets)
			}
			camera.layers[0].keyframe = true
			s.frame(camera)
			if fl.packets != camera.layers[0].packets || fl.keyframes != 1 {
				t.Fatalf("%d packets, %d keyframes came, want the frame that is one", fl.packets, fl.keyframes)
			}
		})
	}
}

// With several layers it is the lowest one that a receiver catches up with, and from there it goes on.
func TestReceiverCatchesUpWithTheLowestLayer(t *testing.T) {
	s := newStage(t)
	camera := s.feed(Camera, 100*kilobit, 300*kilobit, 700*kilobit)
	low := s.watcher()
	low.remb = 150 * kilobit
	_, lowest := low.watch(camera, true)
	high := s.watcher()
	high.remb = 8_000 * kilobit
	_, best := high.watch(camera, true)
	s.run(6 * time.Second)
	if lowest.layer != 0 || best.layer != 2 {
		t.Fatalf("layers %d and %d are sent, want 0 and 2", lowest.layer, best.layer)
	}
	camera.layers[0].keyframe, lowest.switches = true, 0
	for range 10 {
		s.frame(camera)
	}
	w := s.watcher()
	w.remb = 8_000 * kilobit
	_, fl := w.watch(camera, true)
	s.frame(camera)
	if want := 11 * camera.layers[0].packets; fl.packets != want || fl.layer != 0 {
		t.Fatalf("%d packets of layer %d came at once, want %d of the lowest", fl.packets, fl.layer, want)
	}
	s.run(6 * time.Second)
	if fl.layer != 2 || fl.switches != 1 {
		t.Errorf("layer %d after %d switches, want the best after one", fl.layer, fl.switches)
	}
	if lowest.switches != 0 {
		t.Errorf("who can take the lowest alone was switched %d times", lowest.switches)
	}
}
