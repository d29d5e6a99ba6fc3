package metrics

// A ConnState is a state of a peer connection that is worth counting.
type ConnState uint8

// The states of rtcd_rtc_conn_states_total.
const (
	Connected ConnState = iota
	Disconnected
	Failed
	Closed
	numConnStates
)

var connStateLabels = [numConnStates]string{"connected", "disconnected", "failed", "closed"}

func (s ConnState) label() string { return pick(connStateLabels[:], int(s)) }

// An ErrorKind is the class of an error of a session.
type ErrorKind uint8

// The kinds of rtcd_rtc_errors_total.
const (
	SignalingError ErrorKind = iota
	SignalingLockTimeout
	TrackError
	RTPError
	ICEError
	numErrorKinds
)

var errorKindLabels = [numErrorKinds]string{"signaling", "signaling_lock_timeout", "track", "rtp", "ice"}

func (k ErrorKind) label() string { return pick(errorKindLabels[:], int(k)) }

// A Direction says which way a track goes, seen from the server.
type Direction uint8

// The directions of tracks.
const (
	In Direction = iota
	Out
	numDirections
)

var directionLabels = [numDirections]string{"in", "out"}

func (d Direction) label() string { return pick(directionLabels[:], int(d)) }

// A Codec names what a track carries.
type Codec uint8

// The codecs of rtcd_rtc_rtp_tracks_total.
const (
	Opus Codec = iota
	VP8
	AV1
	VP9
	H264
	numCodecs
)

var codecLabels = [numCodecs]string{"audio/opus", "video/VP8", "video/AV1", "video/VP9", "video/H264"}

func (c Codec) label() string { return pick(codecLabels[:], int(c)) }

// A Source is what a track was captured from.
type Source uint8

// The sources of rtcd_rtc_rtp_tracks_writes_time.
const (
	Voice Source = iota
	Screen
	ScreenAudio
	Video
	numSources
)

var sourceLabels = [numSources]string{"voice", "screen", "screen-audio", "video"}

// String returns the label of the source.
func (s Source) String() string { return pick(sourceLabels[:], int(s)) }

func (s Source) label() string { return s.String() }

// A Message is the type of a WebSocket message. Types the server does not know share
// UnknownMessage, however they are spelled.
type Message uint8

// The types of rtcd_ws_messages_total.
const (
	UnknownMessage Message = iota
	JoinMessage
	LeaveMessage
	ReconnectMessage
	RTCMessage
	VADMessage
	HelloMessage
	CloseMessage
	ModerateMessage
	ErrorMessage
	StatsMessage
	numMessages
)

var messageLabels = [numMessages]string{"unknown", "join", "leave", "reconnect", "rtc", "vad", "hello", "close", "moderate", "error", "stats"}

func (t Message) label() string { return pick(messageLabels[:], int(t)) }

// A DiscardReason says why a WebSocket message had no effect.
type DiscardReason uint8

// The reasons of rtcd_ws_discarded_total.
const (
	Undecodable     DiscardReason = iota // not the documented encoding
	TextFrame                            // a text frame
	UnknownType                          // well-formed, of no known type
	NoSession                            // for a session the client does not have
	JoinRefused                          // a join beyond a limit, or while draining
	ParkedOverflow                       // to a client that was away for more than it may leave behind
	ParkedExpired                        // to a client that was away for too long
	Blocked                              // not on the list of what the client may send
	BlockedOut                           // not on the list of what the client may get
	ModerateRefused                      // a moderation that was not done
	numDiscardReasons
)

var discardLabels = [numDiscardReasons]string{
	"undecodable", "text", "unknown_type", "no_session", "join_refused", "parked_overflow", "parked_expired",
	"blocked", "blocked_out", "moderate_refused",
}

// String returns the label of the reason.
func (r DiscardReason) String() string { return pick(discardLabels[:], int(r)) }

// A Limit names a limit by the words operators find in the documentation. Values are constants
// of the package that owns the limit, never input.
type Limit string

// pick returns labels[i], or "unknown" for a value outside the table.
func pick(labels []string, i int) string {
	if i < 0 || i >= len(labels) {
		return "unknown"
	}
	return labels[i]
}
