// Package report explains calls: who had what trouble, when, and on whose leg of the way.
//
// A call has three kinds of legs: the uplink of each that publishes, the server, and the downlink of
// each that receives. Once a second the media server measures every session, as a [Sample], and
// itself, as a [Server]. A [Recorder] keeps the samples and events of one session in little memory,
// [Analyse] finds in those of all sessions of a call what went wrong, and [Page] shows that to people.
//
// It is pure: no goroutine, no lock, no socket, no clock.
package report

// State says what a session is and does, as bits.
type State uint32

// What a session may be or do.
const (
	Connected State = 1 << iota // packets may flow
	OverTCP                     // its media goes over TCP
	HasVoice                    // it publishes a voice
	HasVideo                    // it publishes a camera or a screen
	Muted                       // its voice is muted, by itself as it told us, or by a moderator
	Receives                    // it is sent something of others
)

// A Sample is one second of one session.
type Sample struct {
	Unix      int64  // seconds since 1970 at its end
	State     State  // then
	RoundTrip uint32 // ms, both legs there and back; at least 1 if known, 0: not known
	Up        Up
	Down      Down
}

// Up is what came from the endpoint in one second.
type Up struct {
	Packets  uint32 // RTP packets, without those that repair others
	Sounds   uint32 // of them: of voices and screen sounds
	Bytes    uint32 // of all RTP packets
	Lost     int32  // packets that did not come; negative: came late after all
	Repaired uint32 // lost packets that came on request
	Dropped  uint32 // packets that we did not take, as they were too many
	Jitter   uint32 // ms, of sounds (RFC 3550 section 6.4.1)
	Delay    uint32 // ms that the way took longer than it usually does, at least
	Quiet    uint32 // ms, the longest time without any packet
	Loudness uint32 // of the voice at its loudest: 0 not known, 1 silence, 128 as loud as can be (RFC 6464)
	Layers   uint32 // streams of videos that come
	Declared uint32 // streams of videos that could come
	KeyAsked uint32 // keyframes that we asked for
	Keys     uint32 // keyframes that came
}

// Down is what went to the endpoint in one second.
type Down struct {
	Packets  uint32 // RTP packets sent for the first time
	Bytes    uint32 // of their payloads
	Told     uint32 // packets of which the endpoint told now whether they came
	Lost     int32  // of those: did not, though we sent them; negative: came late after all
	Resent   uint32 // packets that it asked for again and was sent
	Jitter   uint32 // ms, of sounds, as it told last
	Delay    uint32 // ms that the way took longer than it usually does, at least
	Estimate uint32 // kbit/s that the way carries, as far as we know; 0: it is sent no video
	Videos   uint32 // that it could be sent
	Reduced  uint32 // of those: in less than the best there is
	Paused   uint32 // of those: not at all
	Waiting  uint32 // of those: wait for a keyframe for more than a second
	KeyAsked uint32 // keyframes that it asked for
}

// Server is one second of the whole server.
type Server struct {
	Unix      int64
	Late      uint32 // ms, the most that its clock-driven work was late
	Transit   uint32 // ms, the longest that a packet took through it
	SendDrops uint32 // packets that the sockets did not take
}

// Loss returns the share of the packets from the endpoint that did not come, 0 to 1.
func (u *Up) Loss() float64 { return share(u.Lost, u.Packets) }

// Loss returns the share of the packets to the endpoint that did not come, 0 to 1.
func (d *Down) Loss() float64 {
	if d.Told == 0 {
		return 0
	}
	return min(1, float64(max(0, d.Lost))/float64(d.Told))
}

// share returns lost packets in relation to all that were sent.
func share(lost int32, received uint32) float64 {
	if lost <= 0 {
		return 0
	}
	return float64(lost) / float64(uint32(lost)+received)
}

// Kilobits returns kbit/s from the endpoint.
func (u *Up) Kilobits() uint32 { return u.Bytes / 125 }

// Grade is the quality of a second at a glance.
type Grade string

// The grades.
const (
	Unknown Grade = "unknown" // it is not connected
	Good    Grade = "good"
	Fair    Grade = "fair" // one notices
	Poor    Grade = "poor" // one suffers
)

// Grade tells the quality of the second at a glance, of both directions together.
func (s *Sample) Grade() Grade {
	if s.State&Connected == 0 {
		return Unknown
	}
	loss := max(s.Up.Loss(), s.Down.Loss())
	delay := max(s.RoundTrip/2, s.Up.Delay, s.Down.Delay)
	jitter := max(s.Up.Jitter, s.Down.Jitter)
	switch {
	case loss >= 0.08, delay >= 300, jitter >= 80, s.Up.Quiet >= 5000, s.Down.Paused > 0:
		return Poor
	case loss >= 0.02, delay >= 150, jitter >= 30, s.Down.Reduced > 0, s.Down.Waiting > 0:
		return Fair
	}
	return Good
}
