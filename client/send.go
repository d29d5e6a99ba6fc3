package client

import (
	"encoding/json"
	"errors"
	"fmt"

	"rtcd/service/api/wire"
)

// A SignalType is the number of a signalling message.
type SignalType = wire.SignalType

// What SendSignal can send, and the data each takes.
const (
	SignalICE       = wire.SignalICE       // a browser's RTCIceCandidateInit as JSON
	SignalSDP       = wire.SignalSDP       // {"type":"offer"|"answer","sdp":"..."}
	SignalMute      = wire.SignalMute      // none
	SignalUnmute    = wire.SignalUnmute    // none
	SignalScreenOn  = wire.SignalScreenOn  // {"screenStreamID":"..."}
	SignalScreenOff = wire.SignalScreenOff // none
	SignalVideoOn   = wire.SignalVideoOn   // {"videoStreamID":"..."}
	SignalVideoOff  = wire.SignalVideoOff  // none
)

// A Join says who joins what. CallID, UserID and SessionID are required.
type Join struct {
	CallID    string
	UserID    string
	SessionID string // new for each attempt to join; the web uses 26 characters of a-z0-9
	ChannelID string // of the application; listed, not used

	AV1Support  bool // the end user can decode AV1
	DCSignaling bool // the end user takes later offers over its data channel

	// Token is the join token of the end user, where the server asks for one; it is in no log.
	Token string
	// Role restricts what the session may do; empty: as its token says, or not at all.
	Role CallRole
}

// A CallRole is what a session may do in its call.
type CallRole = wire.CallRole

// The roles.
const (
	RolePublisher     = wire.RolePublisher     // publishes and subscribes, as without a role
	RoleSubscriber    = wire.RoleSubscriber    // publishes nothing
	RolePublisherOnly = wire.RolePublisherOnly // subscribes to nothing
	RoleModerator     = wire.RoleModerator     // publishes, subscribes, and may moderate
)

// Join starts a session. From now on it is live: after a loss of the connection it is claimed
// again, until Leave or its Closed. There is no answer; the end user makes the first offer.
func (c *Conn) Join(j Join) error {
	if j.CallID == "" || j.UserID == "" || j.SessionID == "" {
		return errors.New("join: call, user and session ids are required")
	}
	for _, id := range []string{j.CallID, j.UserID} {
		if err := wire.CheckID(id); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if !j.Role.Valid() {
		return errors.New("join: no such role")
	}
	if len(j.Token) > maxToken {
		return errors.New("join: token is too long")
	}
	return c.enqueue(message{
		op: "join", kind: kindJoin, callID: j.CallID, sessionID: j.SessionID,
		data: wire.AppendJoin(nil, wire.Join{
			CallID: j.CallID, UserID: j.UserID, SessionID: j.SessionID,
			ChannelID: &j.ChannelID, AV1Support: &j.AV1Support, DCSignaling: &j.DCSignaling,
			Token: j.Token, Role: j.Role,
		}),
	})
}

// maxToken is what the server reads of a token, in bytes.
const maxToken = 1 << 10

// A Moderation says what is to be done in a call. See docs/protocol.md for what each action needs.
type Moderation = wire.Moderate

// What Moderate can do.
const (
	ActionDisconnect = wire.ActionDisconnect // ends SessionID, which may not join again
	ActionUnpublish  = wire.ActionUnpublish  // ends StreamID, with UntilCallEnd for good
	ActionMute       = wire.ActionMute       // drops the voice of SessionID
	ActionMuteAll    = wire.ActionMuteAll    // drops all voices but those of Except
	ActionMuteState  = wire.ActionMuteState  // while Active, voices stay muted, those of newcomers too

	UntilCallEnd = wire.UntilCallEnd
)

// Moderate has the server do something in a call, whatever its end users do. It needs Config.V2 and
// a server that takes part in it. There is no answer but the effect; what was not done is told by an
// ErrorEvent.
func (c *Conn) Moderate(m Moderation) error {
	if !c.client.cfg.V2 {
		return errors.New("moderate: needs Config.V2")
	}
	if err := m.Check(); err != nil {
		return fmt.Errorf("moderate: %w", err)
	}
	for _, id := range append([]string{m.CallID, m.SessionID, m.StreamID}, m.Except...) {
		if err := wire.CheckID(id); err != nil {
			return fmt.Errorf("moderate: %w", err)
		}
	}
	if len(m.Except) > wire.MaxExcept {
		return fmt.Errorf("moderate: %d exceptions, at most %d", len(m.Except), wire.MaxExcept)
	}
	return c.enqueue(message{op: "moderate", kind: kindModerate, data: wire.AppendModerate(nil, m)})
}

// Leave ends a session. The server answers with its Closed.
func (c *Conn) Leave(sessionID string) error {
	return c.enqueue(message{
		op: "leave", kind: kindLeave, sessionID: sessionID, data: wire.AppendLeave(nil, sessionID),
	})
}

// Reconnect makes this connection the one that messages for a session come over. A Conn does so
// by itself for the sessions it joined; this is for one that another Conn of the same client
// joined, such as another node of a cluster.
func (c *Conn) Reconnect(callID, sessionID string) error {
	return c.enqueue(message{
		op: "reconnect", kind: kindJoin, callID: callID, sessionID: sessionID,
		data: wire.AppendReconnect(nil, sessionID),
	})
}

// SendDescription passes an offer or an answer of the end user on.
func (c *Conn) SendDescription(sessionID string, d SDP) error {
	if d.Type != "offer" && d.Type != "answer" {
		return fmt.Errorf("send description: type %.20q is neither offer nor answer", d.Type)
	}
	return c.sendJSON("send description", sessionID, wire.SignalSDP, d)
}

// SendCandidate passes an ICE candidate of the end user on.
func (c *Conn) SendCandidate(sessionID string, i ICECandidate) error {
	return c.sendJSON("send candidate", sessionID, wire.SignalICE, i)
}

// SendSignal passes a message on as it is: what a browser made, for example. What the server
// cannot use it drops.
func (c *Conn) SendSignal(sessionID string, t SignalType, data []byte) error {
	return c.signal("send signal", sessionID, t, data)
}

// Mute makes the server drop the session's voice, Unmute pass it again. Before there is a voice
// track both do nothing; a new track starts unmuted.
func (c *Conn) Mute(sessionID string) error {
	return c.signal("mute", sessionID, wire.SignalMute, nil)
}

// Unmute is the opposite of Mute.
func (c *Conn) Unmute(sessionID string) error {
	return c.signal("unmute", sessionID, wire.SignalUnmute, nil)
}

// ScreenOn announces that tracks of the stream are the end user's screen. Announce before
// adding the tracks. Only one session in a call shares its screen at a time.
func (c *Conn) ScreenOn(sessionID, streamID string) error {
	return c.sendJSON("screen on", sessionID, wire.SignalScreenOn, map[string]string{"screenStreamID": streamID})
}

// ScreenOff ends the share.
func (c *Conn) ScreenOff(sessionID string) error {
	return c.signal("screen off", sessionID, wire.SignalScreenOff, nil)
}

// VideoOn announces that tracks of the stream are the end user's camera.
func (c *Conn) VideoOn(sessionID, streamID string) error {
	return c.sendJSON("video on", sessionID, wire.SignalVideoOn, map[string]string{"videoStreamID": streamID})
}

// VideoOff announces that the camera is off.
func (c *Conn) VideoOff(sessionID string) error {
	return c.signal("video off", sessionID, wire.SignalVideoOff, nil)
}

func (c *Conn) sendJSON(op, sessionID string, t SignalType, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.signal(op, sessionID, t, data)
}

func (c *Conn) signal(op, sessionID string, t SignalType, data []byte) error {
	if len(data) > wire.MaxMessage {
		return fmt.Errorf("%s: %d bytes: %w", op, len(data), ErrTooLarge)
	}
	return c.enqueue(message{
		op: op, sessionID: sessionID,
		data: wire.AppendRTC(nil, wire.Signal{SessionID: sessionID, Type: t, Data: data}),
	})
}
