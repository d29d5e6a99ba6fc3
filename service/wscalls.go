package service

import (
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/rtc"
)

// wsCalls shows the calls to the WebSocket server.
type wsCalls struct{ *rtc.Server }

func (c wsCalls) Join(p ws.Peer, j wire.Join) error { return c.Server.Join(p.ClientID, j) }

// Moderate does what a moderator wants in a call of the peer's.
func (c wsCalls) Moderate(p ws.Peer, m wire.Moderate) error {
	group := p.ClientID
	switch m.Action {
	case wire.ActionDisconnect:
		return c.Disconnect(group, m.CallID, m.SessionID)
	case wire.ActionUnpublish:
		return c.Unpublish(group, m.CallID, m.StreamID, m.Until == wire.UntilCallEnd)
	case wire.ActionMute:
		return c.Mute(group, m.CallID, m.SessionID)
	case wire.ActionMuteAll:
		return c.MuteAll(group, m.CallID, m.Except)
	case wire.ActionMuteState:
		return c.SetMuteState(group, m.CallID, m.Active, m.Except)
	}
	return wire.ErrAction
}
