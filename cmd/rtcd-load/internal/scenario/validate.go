package scenario

import (
	"errors"
	"fmt"
	"time"

	"rtcd/cmd/rtcd-load/internal/media"
)

// Limits of a scenario.
const (
	maxRooms   = 10_000
	maxInRoom  = 1_000
	maxPeople  = 20_000
	maxRun     = 24 * time.Hour
	maxDelay   = 10 * time.Second
	maxName    = 64 // bytes
	minBitrate = 10_000
	maxBitrate = 50_000_000
	maxFPS     = 120
	maxVoice   = 1_200 // bytes
)

// checks gathers what is wrong.
type checks struct{ faults []error }

func (c *checks) fail(key, format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (c *checks) between(key string, value, least, most int) {
	if value < least || value > most {
		c.fail(key, "%d, must be from %d to %d", value, least, most)
	}
}

func (c *checks) duration(key string, value Duration, least, most time.Duration) {
	if d := time.Duration(value); d < least || d > most {
		c.fail(key, "%v, must be from %v to %v", d, least, most)
	}
}

func (c *checks) impairment(key string, i *Impairment) {
	if i == nil {
		return
	}
	if !(i.Loss >= 0 && i.Loss <= 1) {
		c.fail(key+".loss", "%v, must be from 0 to 1", i.Loss)
	}
	c.duration(key+".delay", i.Delay, 0, maxDelay)
	c.duration(key+".jitter", i.Jitter, 0, maxDelay)
}

func (c *checks) video(key string, v *Video) {
	c.between(key+".bitrate", v.Bitrate, minBitrate, maxBitrate)
	c.between(key+".fps", v.FPS, 1, maxFPS)
}

// Validate returns all that is wrong with a scenario whose every setting is set.
func (s *Scenario) Validate() error {
	var c checks
	c.duration("duration", s.Duration, time.Second, maxRun)
	c.duration("settle", s.Settle, 0, time.Hour)
	c.impairment("up", &s.Up)
	c.impairment("down", &s.Down)
	if len(s.Rooms) == 0 {
		c.fail("rooms", "there are none")
	}
	for i := range s.Rooms {
		c.room(fmt.Sprintf("rooms[%d]", i), &s.Rooms[i])
	}
	if len(c.faults) == 0 && s.People() > maxPeople {
		c.fail("rooms", "%d people in all, must be at most %d", s.People(), maxPeople)
	}
	return errors.Join(c.faults...)
}

func (c *checks) room(key string, r *Room) {
	if len(r.Name) > maxName {
		c.fail(key+".name", "%d bytes, must be at most %d", len(r.Name), maxName)
	}
	c.between(key+".count", r.Count, 1, maxRooms)
	c.between(key+".people", r.People, 1, maxInRoom)
	c.between(key+".joiners", r.Joiners, 0, maxInRoom)
	people := min(max(r.People, 0), maxInRoom)
	c.between(key+".voices", r.Voices, 0, people)
	c.between(key+".cameras", r.Cameras, 0, people)
	c.between(key+".screens", r.Screens, 0, people)
	c.between(key+".leavers", r.Leavers, 0, people)
	c.between(key+".muters", r.Muters, 0, min(max(r.Voices, 0), people))
	c.duration(key+".mute_every", r.MuteEvery, time.Second, maxRun)
	c.duration(key+".start", r.Start, 0, maxRun)
	c.duration(key+".ramp", r.Ramp, 0, maxRun)
	c.between(key+".voice_bytes", r.VoiceBytes, media.StampSize, maxVoice)
	c.video(key+".camera", &r.Camera)
	c.video(key+".screen", &r.Screen)
	c.impairment(key+".up", r.Up)
	c.impairment(key+".down", r.Down)
}
