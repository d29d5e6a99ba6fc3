package scenario

import (
	"fmt"
	"time"
)

// A Person is what one end user of a run does.
type Person struct {
	Shape int    // index of the room's shape in the scenario
	Room  int    // number of the room, over all shapes
	Call  string // name of the room
	Name  string

	// Joins is when the person joins: after the beginning of the run, or of a Late one after the
	// beginning of what is measured. Leaves is likewise after the latter; 0: not before the end.
	Late   bool
	Joins  time.Duration
	Leaves time.Duration

	Voice, Camera, Screen, Mutes bool
}

// Plan returns all people of a scenario, in the order in which they join.
func (s *Scenario) Plan() []Person {
	var plan []Person
	room := 0
	for shape := range s.Rooms {
		r := &s.Rooms[shape]
		for i := range r.Count {
			call := r.Name
			if r.Count > 1 {
				call = fmt.Sprintf("%s-%d", r.Name, i+1)
			}
			// Rooms of one shape join evenly between each other, too.
			shift := time.Duration(r.Ramp) / time.Duration(r.People) * time.Duration(i) / time.Duration(r.Count)
			for n := range r.People + r.Joiners {
				p := Person{Shape: shape, Room: room, Call: call, Name: fmt.Sprintf("%s/%d", call, n+1)}
				if n < r.People {
					p.Joins = time.Duration(r.Start) + shift + time.Duration(r.Ramp)*time.Duration(n)/time.Duration(r.People)
					s.roles(r, &p, n)
				} else {
					p.Late, p.Voice = true, r.JoinersTalk
					p.Joins = spread(time.Duration(s.Duration), n-r.People, r.Joiners)
				}
				plan = append(plan, p)
			}
			room++
		}
	}
	return plan
}

// roles sets what person number n of those in the room from the beginning does.
func (s *Scenario) roles(r *Room, p *Person, n int) {
	p.Voice, p.Camera, p.Screen = n < r.Voices, n < r.Cameras, n < r.Screens
	p.Mutes = n < r.Muters
	if last := r.People - 1 - n; last < r.Leavers {
		p.Leaves = spread(time.Duration(s.Duration), last, r.Leavers)
	}
}

// spread returns a time for number i of n, so that all are evenly within d but for its ends.
func spread(d time.Duration, i, n int) time.Duration {
	return d * time.Duration(2*i+1) / time.Duration(2*n+1)
}

// Impairments returns what happens to the packets of a shape's rooms.
func (s *Scenario) Impairments(shape int) (up, down Impairment) {
	up, down = s.Up, s.Down
	if r := &s.Rooms[shape]; r.Up != nil {
		up = *r.Up
	}
	if r := &s.Rooms[shape]; r.Down != nil {
		down = *r.Down
	}
	return up, down
}

// HasVideo reports whether anybody in a shape's rooms sends video.
func (r *Room) HasVideo() bool { return r.Cameras > 0 || r.Screens > 0 }
