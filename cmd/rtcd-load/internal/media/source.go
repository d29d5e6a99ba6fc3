package media

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
)

const (
	// VoiceEvery is the time between two packets of a voice.
	VoiceEvery = 20 * time.Millisecond
	voiceTicks = 960 // of the clock of 48 kHz, in that time

	// tooLate is how late a packet may become before it is left out, as by a real-time sender.
	tooLate = 200 * time.Millisecond

	talking, silent = 18, 70 // audio levels, in -dBov
)

// A Writer takes packets to send. It may keep nothing of them.
type Writer interface {
	WriteRTP(*rtp.Packet) error
}

// Microphone is a Task that sends a voice. It speaks all the time, in sentences with pauses whose
// packets say by their audio level that they are quiet.
type Microphone struct {
	source  *Source
	ledger  *Ledger
	to      Writer
	levelID uint8 // of the audio level's extension; 0: not negotiated
	size    int   // of a payload

	paused  atomic.Bool
	stopped atomic.Bool

	// The pacer's.
	number    uint32
	sequence  uint16
	timestamp uint32
	talk      int // packets of the sentence or pause that are left
	loud      bool
	payload   []byte
	packet    rtp.Packet
}

// NewMicrophone returns the task of a voice with payloads of size bytes.
func NewMicrophone(l *Ledger, s *Source, to Writer, levelID uint8, size int) *Microphone {
	return &Microphone{
		source: s, ledger: l, to: to, levelID: levelID, size: max(size, StampSize),
		sequence: uint16(rand.Uint32()), timestamp: rand.Uint32(), payload: make([]byte, 0, max(size, StampSize)),
	}
}

// Pause stops the sending until it is called with false.
func (m *Microphone) Pause(on bool) { m.paused.Store(on) }

// Stop ends the sending for good.
func (m *Microphone) Stop() {
	m.stopped.Store(true)
	m.source.Stop()
}

// Send implements Task.
func (m *Microphone) Send(due, now time.Duration) (time.Duration, bool) {
	if m.stopped.Load() {
		return 0, false
	}
	next := due + VoiceEvery
	m.timestamp += voiceTicks
	switch {
	case m.paused.Load():
		return next, true
	case now-due > tooLate:
		m.ledger.Totals.Skipped.Add(1)
		return next, true
	}
	if m.talk--; m.talk < 0 {
		m.loud = !m.loud
		m.talk = 40 + rand.IntN(60)
		if !m.loud {
			m.talk = 5 + rand.IntN(15)
		}
	}
	level := byte(silent)
	if m.loud {
		level = byte(talking + rand.IntN(24)) // steady levels are no voice
	}
	m.packet.Header = rtp.Header{Version: 2, SequenceNumber: m.sequence, Timestamp: m.timestamp}
	if m.levelID != 0 {
		_ = m.packet.SetExtension(m.levelID, []byte{0x80 | level}) // fails for ids that no session negotiates
	}
	m.payload = m.payload[:m.size-StampSize]
	stamp := Stamp{Run: m.ledger.Run, Source: m.source.ID, Number: m.number, Packets: 1, Frame: m.number, Sent: Now()}
	m.packet.Payload = stamp.Append(m.payload, 0)
	m.sequence++
	m.number++
	m.source.wrote(m.ledger, 0, len(m.packet.Payload), m.to.WriteRTP(&m.packet))
	return next, true
}

// wrote counts a packet.
func (s *Source) wrote(l *Ledger, layer, size int, err error) {
	if s.began.Load() == 0 {
		s.began.Store(int64(Now()))
	}
	s.sent[layer].Add(1)
	l.Totals.Sent.Add(1)
	l.Totals.SentBytes.Add(uint64(size))
	if err != nil {
		l.Totals.Failed.Add(1)
	}
}
