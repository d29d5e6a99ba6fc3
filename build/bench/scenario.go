//go:build linux

package main

import (
	"fmt"

	"rtcd/build/bench/endpoint"
	"rtcd/build/bench/servers"
)

// What is sent. Sizes are those of payloads: a voice of 32 kbit/s makes packets of some 120 bytes.
var (
	voice    = endpoint.Kind{FramesPerSecond: 50, Packets: 1, Bytes: 84}
	screen   = endpoint.Kind{Video: true, FramesPerSecond: 30, Packets: 6, Bytes: 1040} // 1.5 Mbit/s
	camera   = endpoint.Kind{Video: true, FramesPerSecond: 30, Packets: 3, Bytes: 1110} // 0.8 Mbit/s
	fanVideo = endpoint.Kind{Video: true, FramesPerSecond: 30, Packets: 5, Bytes: 1000} // 1.2 Mbit/s
)

// scenario is a load: rooms, and what is sent in them.
type scenario struct {
	name, title string
	rooms       []servers.Room
	reading     bool // receivers read, and send feedback
}

// room returns one of n members of which the first ones publish.
func room(i, n, publishers int, publish ...endpoint.Kind) servers.Room {
	r := servers.Room{Name: fmt.Sprint("room", i)}
	for k := range n {
		m := servers.Member{ID: fmt.Sprintf("session-%d-%d", i, k)}
		if k < publishers {
			m.Publish = publish
		}
		r.Members = append(r.Members, m)
	}
	return r
}

func rooms(count, n, publishers int, publish ...endpoint.Kind) []servers.Room {
	var out []servers.Room
	for i := range count {
		out = append(out, room(i, n, publishers, publish...))
	}
	return out
}

// scenarios returns those that are measured, with fan-outs to as many as the list says.
func scenarios(fans []int) []scenario {
	calls := []scenario{
		{name: "6x8", title: "6 rooms of 8, 2 speak", rooms: rooms(6, 8, 2, voice)},
		{name: "60", title: "1 room of 60, 3 speak", rooms: rooms(1, 60, 3, voice)},
		{name: "screen", title: "one 1.5 Mbit/s video to 30", rooms: rooms(1, 31, 1, screen)},
		{name: "cameras", title: "6 people, all send 0.8 Mbit/s video and audio", rooms: rooms(1, 6, 6, voice, camera)},
	}
	all := calls
	for _, c := range calls {
		c.name, c.reading = c.name+"-read", true
		all = append(all, c)
	}
	for _, n := range fans {
		all = append(all, scenario{name: fmt.Sprint("audio-", n), title: fmt.Sprintf("a voice to %d", n), rooms: rooms(1, n+1, 1, voice)})
	}
	for _, n := range fans {
		all = append(all, scenario{name: fmt.Sprint("video-", n), title: fmt.Sprintf("a 1.2 Mbit/s video to %d", n), rooms: rooms(1, n+1, 1, fanVideo)})
	}
	return all
}

// sessions returns how many there are.
func (s scenario) sessions() int {
	n := 0
	for _, r := range s.rooms {
		n += len(r.Members)
	}
	return n
}

// rate returns how many packets a second are due at receivers.
func (s scenario) rate() float64 { return s.count(func(endpoint.Kind) bool { return true }) }

// video returns the share of them that is video.
func (s scenario) video() float64 {
	return s.count(func(k endpoint.Kind) bool { return k.Video }) / s.rate()
}

func (s scenario) count(of func(endpoint.Kind) bool) float64 {
	n := 0
	for _, r := range s.rooms {
		for _, m := range r.Members {
			for _, k := range m.Publish {
				if of(k) {
					n += k.PacketsPerSecond() * (len(r.Members) - 1)
				}
			}
		}
	}
	return float64(n)
}
