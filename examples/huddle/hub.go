package main

import (
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"rtcd/client"
)

// Limits on what browsers can make us keep.
const (
	maxRooms        = 100
	maxParticipants = 500 // in all rooms
	maxInRoom       = 50
	maxName         = 32 // characters
	queueLength     = 256
)

// rtcd is what the hub needs of a client.Conn.
type rtcd interface {
	Join(client.Join) error
	Leave(sessionID string) error
	SendSignal(sessionID string, t client.SignalType, data []byte) error
	Mute(sessionID string) error
	Unmute(sessionID string) error
}

// A participant is one browser in a room.
type participant struct {
	id    string // also the session id at rtcd
	token string // lets its browser come back; nobody else knows it
	nth   int    // in the order of coming
	room  string
	name  string
	out   chan any      // messages for the browser, as JSON
	gone  chan struct{} // closed by the hub when it gives the browser up

	// Guarded by the hub's mu.
	link                     *link       // nil while the browser is away
	leaving                  *time.Timer // runs while it is away
	muted, speaking, dropped bool
	camera                   bool            // it is on
	layers                   json.RawMessage // of its videos; checked
}

// A person is what others are told about a participant.
type person struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Muted    bool   `json:"muted"`
	Speaking bool   `json:"speaking"`
	Camera   bool   `json:"camera"`

	// Layers has the layers of "video" and "screen", as the browser that sends them told them.
	Layers json.RawMessage `json:"layers,omitempty"`
}

// A notice is a message to a browser; which fields are set depends on its type.
type notice struct {
	Type   string          `json:"type"` // welcome, person, left, voice, screen, sdp, ice, server, ended
	ID     string          `json:"id,omitempty"`
	Token  string          `json:"token,omitempty"` // to come back with
	Back   bool            `json:"back,omitempty"`  // it is the session of before
	Room   string          `json:"room,omitempty"`
	Person *person         `json:"person,omitempty"`
	People []person        `json:"people,omitempty"`
	Sharer string          `json:"sharer,omitempty"` // whose screen is shared
	On     bool            `json:"on"`
	Text   string          `json:"text,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// A hub knows who is in which room and carries messages between browsers and rtcd. It never
// blocks: a browser that does not keep up is given up.
type hub struct {
	rtcd  rtcd
	log   *slog.Logger
	grace time.Duration // how long a browser that is lost may take to come back

	mu      sync.Mutex
	rooms   map[string]map[string]*participant // by name and session id
	all     map[string]*participant            // by session id
	tokens  map[string]*participant
	sharers map[string]*participant // by room, of those where a screen is shared
	came    int                     // how many ever entered
	closed  bool
}

func newHub(r rtcd, log *slog.Logger) *hub {
	return &hub{
		rtcd: r, log: log, grace: defaultGrace, rooms: make(map[string]map[string]*participant),
		all: make(map[string]*participant), tokens: make(map[string]*participant),
		sharers: make(map[string]*participant),
	}
}

// A refusal is an error for people: the page shows it.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

const (
	errFull     refusal = "This huddle server is full. Please try again later."
	errRoomFull refusal = "This room is full."
	errClosing  refusal = "This huddle server is shutting down."
)

// A visitor is a browser that wants to come in.
type visitor struct {
	room, name string
	av1        bool // it can receive AV1
}

// enter puts the browser at l into a room and starts its session at rtcd. Its errors are for people.
func (h *hub) enter(v visitor, l *link) (*participant, error) {
	room := v.room
	p := &participant{
		id: newID(), token: newID(), room: room, name: v.name, link: l, muted: true,
		out: make(chan any, queueLength), gone: make(chan struct{}),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, errClosing
	case len(h.all) >= maxParticipants || h.rooms[room] == nil && len(h.rooms) >= maxRooms:
		return nil, errFull
	case len(h.rooms[room]) >= maxInRoom:
		return nil, errRoomFull
	}
	// Sending to rtcd only queues, so it may stand under the lock; that keeps the order.
	if err := h.rtcd.Join(client.Join{CallID: room, UserID: p.id, SessionID: p.id, AV1Support: v.av1}); err != nil {
		h.log.Warn("join", "err", err)
		return nil, errFull
	}
	if h.rooms[room] == nil {
		h.rooms[room] = make(map[string]*participant)
	}
	h.came++
	p.nth = h.came
	self := p.person()
	h.tellRoom(room, notice{Type: "person", Person: &self})
	h.rooms[room][p.id], h.all[p.id], h.tokens[p.token] = p, p, p
	h.welcome(p, false)
	return p, nil
}

// welcome tells a browser who is there, with the lock held.
func (h *hub) welcome(p *participant, back bool) {
	n := notice{Type: "welcome", ID: p.id, Token: p.token, Back: back, Room: p.room, Sharer: h.sharer(p.room)}
	byArrival := func(a, b *participant) int { return a.nth - b.nth }
	for _, other := range slices.SortedFunc(maps.Values(h.rooms[p.room]), byArrival) {
		n.People = append(n.People, other.person())
	}
	h.tell(p, n)
}

// leave takes a browser out of its room and ends its session, with the lock held.
func (h *hub) leave(p *participant) {
	h.remove(p)
	if err := h.rtcd.Leave(p.id); err != nil {
		h.log.Warn("leave", "err", err)
	}
}

// remove is called with the lock held.
func (h *hub) remove(p *participant) {
	p.stay()
	delete(h.all, p.id)
	delete(h.tokens, p.token)
	delete(h.rooms[p.room], p.id)
	h.stopSharing(p)
	if len(h.rooms[p.room]) == 0 {
		delete(h.rooms, p.room)
	}
	h.tellRoom(p.room, notice{Type: "left", ID: p.id})
}

// setMuted tells rtcd and the room whether a participant is muted.
func (h *hub) setMuted(p *participant, muted bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.muted = muted
	self := p.person()
	h.tellRoom(p.room, notice{Type: "person", Person: &self})
	if muted {
		return h.rtcd.Mute(p.id)
	}
	return h.rtcd.Unmute(p.id)
}

// serve carries what rtcd says to the browsers until events is closed.
func (h *hub) serve(events <-chan client.Event) {
	for event := range events {
		h.mu.Lock()
		switch ev := event.(type) {
		case client.Connected:
			h.tellAll(notice{Type: "server", On: true})
		case client.Disconnected:
			h.tellAll(notice{Type: "server"})
		case client.Description:
			h.relay(ev.SessionID, "sdp", ev.Data)
		case client.Candidate:
			h.relay(ev.SessionID, "ice", ev.Data)
		case client.Voice:
			if p := h.all[ev.SessionID]; p != nil {
				p.speaking = ev.On
				h.tellRoom(p.room, notice{Type: "voice", ID: p.id, On: ev.On})
			}
		case client.Closed:
			if p := h.all[ev.SessionID]; p != nil {
				h.remove(p)
				h.tell(p, notice{Type: "ended", Text: "The connection to the call ended."})
				h.drop(p)
			}
		}
		h.mu.Unlock()
	}
}

// relay passes signalling on to a browser, with the lock held.
func (h *hub) relay(id, kind string, data json.RawMessage) {
	if p := h.all[id]; p != nil && json.Valid(data) {
		h.tell(p, notice{Type: kind, Data: data})
	}
}

// close ends all sessions and lets nobody in any more.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for id, p := range h.all {
		p.stay()
		if err := h.rtcd.Leave(id); err != nil {
			h.log.Warn("leave", "err", err)
		}
		h.tell(p, notice{Type: "ended", Text: errClosing.Error()})
		h.drop(p)
	}
	clear(h.all)
	clear(h.tokens)
	clear(h.sharers)
	clear(h.rooms)
}

// tell queues a message for a browser, or gives it up. All that tell are called with the lock held.
func (h *hub) tell(p *participant, n notice) {
	select {
	case p.out <- n:
	default:
		h.drop(p)
	}
}

func (h *hub) tellRoom(room string, n notice) {
	for _, p := range h.rooms[room] {
		h.tell(p, n)
	}
}

func (h *hub) tellAll(n notice) {
	for _, p := range h.all {
		h.tell(p, n)
	}
}

// drop gives a browser up: what is queued is still sent, then its connection is closed, which
// makes it leave. One that is away leaves now.
func (h *hub) drop(p *participant) {
	if p.dropped {
		return
	}
	p.dropped = true
	close(p.gone)
	if p.leaving != nil {
		p.leaving.Reset(0)
	}
}

func (p *participant) person() person {
	return person{ID: p.id, Name: p.name, Muted: p.muted, Speaking: p.speaking, Camera: p.camera, Layers: p.layers}
}

// newID returns 26 random characters of a-z0-9: 130 bits.
func newID() string {
	const alphabet = "abcdefghijkmnopqrstuvwxyz3456789"
	var id [26]byte
	_, _ = rand.Read(id[:]) // never fails
	for i := range id {
		id[i] = alphabet[id[i]%32]
	}
	return string(id[:])
}
