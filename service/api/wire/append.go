package wire

import "rtcd/service/msgpack"

// AppendHello appends the server's first message.
func AppendHello(dst []byte, clientID, connID string) []byte {
	dst = msgpack.AppendString(dst, TypeHello)
	dst = msgpack.AppendMap(dst, 2)
	dst = appendPair(dst, "clientID", clientID)
	return appendPair(dst, "connID", connID)
}

// AppendClose appends the last message of a session.
func AppendClose(dst []byte, sessionID string) []byte {
	return appendSession(dst, TypeClose, sessionID)
}

// AppendLeave appends a backend's end of a session.
func AppendLeave(dst []byte, sessionID string) []byte {
	return appendSession(dst, TypeLeave, sessionID)
}

// AppendReconnect appends a backend's request to move a session to this connection.
func AppendReconnect(dst []byte, sessionID string) []byte {
	return appendSession(dst, TypeReconnect, sessionID)
}

func appendSession(dst []byte, typ, sessionID string) []byte {
	dst = msgpack.AppendString(dst, typ)
	dst = msgpack.AppendMap(dst, 1)
	return appendPair(dst, "sessionID", sessionID)
}

// AppendJoin appends a join. Props that are nil, and a token and a role that are empty, are left out.
func AppendJoin(dst []byte, j Join) []byte {
	n := 3
	for _, set := range []bool{j.ChannelID != nil, j.AV1Support != nil, j.DCSignaling != nil, j.Token != "", j.Role != ""} {
		if set {
			n++
		}
	}
	dst = msgpack.AppendString(dst, TypeJoin)
	dst = msgpack.AppendMap(dst, n)
	dst = appendPair(dst, "callID", j.CallID)
	dst = appendPair(dst, "userID", j.UserID)
	dst = appendPair(dst, "sessionID", j.SessionID)
	if j.ChannelID != nil {
		dst = appendPair(dst, "channelID", *j.ChannelID)
	}
	if j.AV1Support != nil {
		dst = msgpack.AppendBool(msgpack.AppendString(dst, "av1Support"), *j.AV1Support)
	}
	if j.DCSignaling != nil {
		dst = msgpack.AppendBool(msgpack.AppendString(dst, "dcSignaling"), *j.DCSignaling)
	}
	if j.Token != "" {
		dst = appendPair(dst, "token", j.Token)
	}
	if j.Role != "" {
		dst = appendPair(dst, "role", string(j.Role))
	}
	return dst
}

// AppendRTC appends signalling, in either direction.
func AppendRTC(dst []byte, s Signal) []byte { return appendSignal(dst, TypeRTC, s) }

// AppendVAD appends a voice activity message.
func AppendVAD(dst []byte, s Signal) []byte { return appendSignal(dst, TypeVAD, s) }

func appendSignal(dst []byte, typ string, s Signal) []byte {
	n := 5
	if len(s.Data) > 0 {
		n++
	}
	dst = msgpack.AppendString(dst, typ)
	dst = msgpack.AppendMap(dst, n)
	dst = appendPair(dst, "group_id", s.GroupID)
	dst = appendPair(dst, "user_id", s.UserID)
	dst = appendPair(dst, "session_id", s.SessionID)
	dst = appendPair(dst, "call_id", s.CallID)
	dst = msgpack.AppendInt(msgpack.AppendString(dst, "type"), int64(s.Type))
	if len(s.Data) > 0 {
		dst = msgpack.AppendBytes(msgpack.AppendString(dst, "data"), s.Data)
	}
	return dst
}

func appendPair(dst []byte, key, value string) []byte {
	return msgpack.AppendString(msgpack.AppendString(dst, key), value)
}
