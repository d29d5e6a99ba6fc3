package speech

import "time"

// MaxPlaces is the most voices that a [Floor] can be told to admit.
const MaxPlaces = 1000

const (
	silence    = 127                     // the level of silence, and so the range of levels
	quietLevel = 60                      // levels from here on are quiet, if not silent
	hysteresis = 3                       // dB that a challenger has to be louder
	absence    = 1500 * time.Millisecond // whoever is quiet or gone for so long may lose the place
	stay       = 500 * time.Millisecond  // a place is kept for at least so long
	packetTime = 20 * time.Millisecond   // what a packet of voice usually holds
	challenged = 64                      // voices without a place that are remembered

	// Levels are smoothed with a first-order filter of these time constants: a click is no speech,
	// and a word does not end with its vowel. Of a step, 1/170 is left after 200 ms.
	attack      = 30 * time.Millisecond
	release     = 400 * time.Millisecond
	longestStep = 60 * time.Millisecond // a pause between packets lasts no longer; then it is silence
)

// A Floor chooses the loudest voices of a call.
//
// Each of its places is held by one voice. A free place is taken at once, even by a silent voice, as
// there is room; and so is one whose holder has been silent ever since it came, but only by a voice
// that is not. Else a voice gets a place if its smoothed level is at least 3 dB above that of the
// quietest holder, or if it is not quiet and a holder was (below -60 dBov) for 1.5 s; but not within
// 500 ms after that holder came. A place is free if its holder has left or sent nothing for 1.5 s.
//
// The zero Floor admits everybody. After NewFloor a Floor does not allocate.
type Floor struct {
	places []place
	others [challenged]voice // those without a place that are not silent
}

// A voice is what is known of one.
type voice struct {
	id    uint64
	known bool
	loud  float32       // smoothed level in dB above silence
	level uint8         // of its last packet
	last  time.Duration // when its last packet came
	heard time.Duration // when it was last not quiet, or came
}

// A place may be held by a voice.
type place struct {
	voice                // the holder, if known
	spoken bool          // the holder has not only been silent
	since  time.Duration // when it came, or was first not silent

	admitted bool          // a packet has been, of this or a former holder
	at       time.Duration // the last one
	waiting  bool          // the holder has to wait until packetTime has passed since
}

// NewFloor returns a Floor of n places, at most [MaxPlaces]; one that admits everybody if n is 0 or
// less.
func NewFloor(n int) *Floor {
	return &Floor{places: make([]place, min(max(n, 0), MaxPlaces))}
}

// Admit judges the level of a voice packet (RFC 6464, without the V bit: 0 is loudest, 127 and above
// is silence) that arrived at now, on any clock that does not run backwards. It reports whether the
// packet is to be forwarded.
//
// Within 20 ms a place admits one voice only, so that receivers never get more voices than places: a
// voice that takes a place waits until 20 ms have passed since the last packet of the former holder.
func (f *Floor) Admit(id uint64, level uint8, now time.Duration) bool {
	if len(f.places) == 0 {
		return true
	}
	level = min(level, silence)
	for i := range f.places {
		if p := &f.places[i]; p.known && p.id == id {
			p.hear(level, now)
			if !p.spoken && level < silence {
				p.spoken, p.since = true, now
			}
			return p.admit(now)
		}
	}

	var unknown voice
	v := f.other(id, level, now)
	if v == nil {
		v = &unknown
	}
	if !v.known || v.id != id {
		*v = voice{id: id, known: true, last: now - packetTime, heard: now}
	}
	v.hear(level, now)
	p := f.yielding(v, level, now)
	if p == nil {
		return false
	}
	p.voice, *v = *v, p.voice
	p.spoken, p.since, p.waiting = level < silence, now, p.admitted
	return p.admit(now)
}

// Leave forgets a voice; its place is free.
func (f *Floor) Leave(id uint64) {
	for i := range f.places {
		if p := &f.places[i]; p.known && p.id == id {
			p.voice = voice{}
		}
	}
	for i := range f.others {
		if v := &f.others[i]; v.known && v.id == id {
			*v = voice{}
		}
	}
}

// other returns what is known of a voice without a place, or if that is nothing, room for it: not
// for a silent one, nor one that is quieter than all that are known.
func (f *Floor) other(id uint64, level uint8, now time.Duration) *voice {
	var room *voice
	least := float32(silence - level)
	for i := range f.others {
		v := &f.others[i]
		if v.known && v.id == id {
			return v
		}
		loud := float32(-1)
		if v.known && now-v.last < absence {
			loud = max(v.loudness(now), float32(silence-v.level))
		}
		if loud < least {
			room, least = v, loud
		}
	}
	if level == silence {
		return nil
	}
	return room
}

// yielding returns the place that a voice may take, or nil.
func (f *Floor) yielding(v *voice, level uint8, now time.Duration) *place {
	var silent, quiet, weakest *place
	least := v.loud - hysteresis
	for i := range f.places {
		p := &f.places[i]
		switch {
		case !p.known || now-p.last >= absence:
			return p
		case !p.spoken:
			if level < silence {
				silent = p
			}
		case now-p.since < stay:
		case now-p.heard >= absence && level < quietLevel:
			quiet = p
		default:
			if loud := p.loudness(now); loud <= least {
				weakest, least = p, loud
			}
		}
	}
	switch {
	case silent != nil:
		return silent
	case quiet != nil:
		return quiet
	}
	return weakest
}

// admit reports whether a packet of the holder is to be forwarded.
func (p *place) admit(now time.Duration) bool {
	if p.waiting && now-p.at < packetTime {
		return false
	}
	p.waiting, p.admitted, p.at = false, true, now
	return true
}

// hear takes note of a packet.
func (v *voice) hear(level uint8, now time.Duration) {
	v.loud = v.loudness(now)
	loud, constant := float32(silence-level), attack
	if loud < v.loud {
		constant = release
	}
	step := min(max(now-v.last, 0), longestStep)
	v.loud += (loud - v.loud) * float32(step) / float32(step+constant)
	v.level, v.last = level, now
	if level < quietLevel {
		v.heard = now
	}
}

// loudness returns the smoothed level, which falls while there are no packets.
func (v *voice) loudness(now time.Duration) float32 {
	idle := max(now-v.last-longestStep, 0)
	return v.loud * float32(release) / float32(release+idle)
}
