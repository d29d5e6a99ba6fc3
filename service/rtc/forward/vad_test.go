package forward

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// voices notes what OnVoice is told.
type voices struct {
	mu   sync.Mutex
	told []bool
}

func (v *voices) hook(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.told = append(v.told, on)
}

func (v *voices) want(t *testing.T, want ...bool) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Equal(v.told, want) {
		t.Errorf("voice went %v, want %v", v.told, want)
	}
}

// speak sends n packets with levels that vary.
func (e *endpoint) speak(n int) {
	e.t.Helper()
	for i := range n {
		e.push(e.seal(e.next([]uint8{20, 80}[i%2])))
		e.advance(20 * time.Millisecond)
	}
}

// rest sends n packets of silence.
func (e *endpoint) rest(n int) {
	e.t.Helper()
	for range n {
		e.push(e.seal(e.next(127)))
		e.advance(20 * time.Millisecond)
	}
}

func TestVoiceGoesOnAndOff(t *testing.T) {
	var v voices
	e := newRig(t).endpoint(gcm)
	pub := e.publish(PublicationConfig{OnVoice: v.hook})
	e.speak(50)
	v.want(t)
	e.speak(1)
	v.want(t, true)
	if !pub.Speaking() {
		t.Error("not speaking, want speaking")
	}
	e.rest(99)
	v.want(t, true)
	e.rest(1)
	v.want(t, true, false)
}

func TestMuteTurnsTheVoiceOffAndStillListens(t *testing.T) {
	var v voices
	e := newRig(t).endpoint(gcm)
	pub := e.publish(PublicationConfig{OnVoice: v.hook})
	e.speak(51)
	pub.SetMuted(true)
	v.want(t, true, false)
	pub.SetMuted(true)
	e.speak(50)
	v.want(t, true, false)
	e.speak(1)
	v.want(t, true, false, true)
	pub.SetMuted(false)
	v.want(t, true, false, true)
}

func TestVoiceThatStopsGoesOff(t *testing.T) {
	var v voices
	r := newRig(t)
	e := r.endpoint(gcm)
	e.publish(PublicationConfig{OnVoice: v.hook})
	e.speak(51) // the last packet is 20 ms old
	r.advance(voiceTimeout - 20*time.Millisecond)
	r.tick()
	v.want(t, true)
	r.advance(1)
	r.tick()
	v.want(t, true, false)
	e.speak(50)
	v.want(t, true, false)
	e.speak(1)
	v.want(t, true, false, true)
}

func TestVoiceGoesOffAtTheEnd(t *testing.T) {
	var v voices
	r := newRig(t)
	e := r.endpoint(gcm)
	pub := e.publish(PublicationConfig{OnVoice: v.hook})
	e.speak(51)
	pub.Close()
	v.want(t, true, false)
	pub.Close()
	v.want(t, true, false)

	var w voices
	e.publish(PublicationConfig{OnVoice: w.hook})
	e.speak(51)
	e.peer.Close()
	w.want(t, true, false)
}

// A publication that lost its section to another is a voice that has stopped.
func TestReplacedVoiceGoesOff(t *testing.T) {
	var v voices
	r := newRig(t)
	e := r.endpoint(gcm)
	e.publish(PublicationConfig{OnVoice: v.hook})
	e.speak(51)
	e.publish(PublicationConfig{})
	e.speak(60)
	r.tick()
	v.want(t, true, false)
}

// Loud music of a shared screen makes nobody a speaker.
func TestOnlyVoicesAreListenedTo(t *testing.T) {
	for _, source := range []Source{ScreenAudio, Screen, Camera} {
		var v voices
		e := newRig(t).endpoint(gcm)
		e.publish(PublicationConfig{Source: source, OnVoice: v.hook})
		e.speak(200)
		v.want(t)
	}
}

func TestNoLevelsNoVoice(t *testing.T) {
	var v voices
	e := newRig(t).endpoint(gcm)
	up := e.uplink("0")
	up.Ext.AudioLevel = 0
	e.peer.SetUplinks([]Uplink{up})
	e.publish(PublicationConfig{OnVoice: v.hook})
	e.speak(200)
	v.want(t)
}

// What OnVoice is told last is true, whoever changes the voice and when.
func TestVoiceIsToldInOrder(t *testing.T) {
	var v voices
	r := newRig(t)
	e := r.endpoint(gcm)
	pub := e.publish(PublicationConfig{OnVoice: v.hook})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				pub.SetMuted(true)
				pub.SetMuted(false)
			}
		}
	})
	for range 100 {
		e.speak(60)
	}
	close(stop)
	wg.Wait()
	pub.Close()
	for i, on := range v.told {
		if on != (i%2 == 0) {
			t.Fatalf("voice went %v at change %d", on, i)
		}
	}
	if len(v.told)%2 != 0 {
		t.Error("the voice is left on")
	}
}

// The plane in the time of its goroutines: a reader and a ticker, as rtc runs them.
func TestTicksInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v voices
		r := newRig(t)
		r.plane = NewPlane(Config{})
		r.read, r.out = r.reader()
		e, listener := r.endpoint(gcm), r.endpoint(gcm)
		sub := listener.subscribe(e.publish(PublicationConfig{OnVoice: v.hook}))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, out := r.reader()
			ticker := time.NewTicker(TickInterval)
			defer ticker.Stop()
			for {
				select {
				case now := <-ticker.C:
					r.plane.Tick(now, out)
				case <-stop:
					return
				}
			}
		})
		time.Sleep(time.Millisecond) // so that packets and ticks never coincide
		for range 50 {
			e.speak(2)
			time.Sleep(40 * time.Millisecond)
		}
		v.want(t, true)
		if n := len(listener.heard()); n != 100 {
			t.Errorf("%d packets arrived, want 100", n)
		}
		time.Sleep(3 * time.Second)
		v.want(t, true, false)
		if n := sub.Stats().Packets; n != 100 {
			t.Errorf("%d packets counted, want 100", n)
		}
		if n := r.plane.Stats().RTCPOut; n < 20 || n > 20+8 {
			t.Errorf("%d RTCP packets out, want 20 feedbacks and a few reports", n)
		}
		close(stop)
		wg.Wait()
	})
}
