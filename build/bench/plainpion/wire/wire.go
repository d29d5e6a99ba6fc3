// Package wire has the messages of plainpion's HTTP interface.
package wire

// Room is the body of POST /rooms: a room, and all tracks that will be sent in it.
type Room struct {
	Name   string  `json:"name"`
	Tracks []Track `json:"tracks"`
}

// Track is one that a session will send.
type Track struct {
	Session string `json:"session"`
	Video   bool   `json:"video"` // VP8; else Opus
}

// Join is the body of POST /join. The offer has a section for each track of others, and its
// candidates.
type Join struct {
	Room    string `json:"room"`
	Session string `json:"session"`
	SDP     string `json:"sdp"`
}

// Answer is what POST /join returns.
type Answer struct {
	SDP string `json:"sdp"`
}

// Stats is what GET /stats returns. Packets are those of RTP.
type Stats struct {
	Sessions   int    `json:"sessions"`
	Goroutines int    `json:"goroutines"`
	Received   uint64 `json:"received"`
	Forwarded  uint64 `json:"forwarded"` // written to a receiver
}
