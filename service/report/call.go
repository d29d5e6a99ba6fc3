package report

// A Session is what is known of one session of a call.
type Session struct {
	ID      string
	User    string // as its backend named it
	Network string // where its packets come from; "" if that is not told
	Joined  int64  // milliseconds since 1970
	Left    int64  // likewise; 0: it is there
	Reason  string // why it has left
	Points  []Point
	Events  []Event
	More    int // events that are not there any more
	Unknown int // seconds that nothing is known of any more
}

// A Call is what is known of a call.
type Call struct {
	ID       string
	Started  int64 // milliseconds since 1970
	Ended    int64 // likewise; 0: it goes on
	Now      int64 // likewise: when this was put together
	Sessions []Session
	Servers  []Server // the oldest first
	Omitted  int      // sessions of which nothing is known any more
}

// Kind says what went wrong.
type Kind string

// The kinds of findings.
const (
	Loss         Kind = "loss"          // packets did not come
	Delay        Kind = "delay"         // packets came late, all or some of them
	Rate         Kind = "rate"          // the way carries less than what should go over it
	Disconnect   Kind = "disconnected"  // nothing came
	Restart      Kind = "restart"       // the connection had to be made anew, or moved
	Fallback     Kind = "tcp"           // media over TCP
	Stall        Kind = "stall"         // the server was slow
	Refused      Kind = "refused"       // more was sent than the server takes
	Silence      Kind = "silence"       // a voice that is on and not heard
	Freeze       Kind = "freeze"        // pictures stood still for want of a keyframe
	NotConnected Kind = "no connection" // it never was
)

// Leg says where it went wrong.
type Leg string

// The legs of the way. Path is both directions between an endpoint and us, where it cannot be told which.
const (
	Uplink   Leg = "uplink"
	OnServer Leg = "server"
	Downlink Leg = "downlink"
	Path     Leg = "path"
)

// A Finding is something that went wrong for a while.
type Finding struct {
	Kind       Kind
	Leg        Leg
	Session    string  // whose leg; "" for the server's
	From, To   int64   // seconds since 1970
	Confidence float64 // 0 to 1
	Weight     float64 // how bad it was: for the order only
	Evidence   Evidence
	Receivers  int // sessions that were sent what the uplink carries
}

// Evidence are the figures that a finding rests on. What does not matter for it is 0.
type Evidence struct {
	LossPercent      float64 `json:"loss_percent,omitempty"`
	Lost             int64   `json:"lost_packets,omitempty"`
	Repaired         int64   `json:"repaired_packets,omitempty"`
	DelayMs          uint32  `json:"delay_ms,omitempty"` // more than usual, mean
	MostDelayMs      uint32  `json:"most_delay_ms,omitempty"`
	RoundTripMs      uint32  `json:"round_trip_ms,omitempty"`
	UsualRoundTripMs uint32  `json:"usual_round_trip_ms,omitempty"`
	JitterMs         uint32  `json:"jitter_ms,omitempty"`
	Kilobits         uint32  `json:"kilobits,omitempty"`       // that came through
	UsualKilobits    uint32  `json:"usual_kilobits,omitempty"` // before
	EstimateKilobits uint32  `json:"estimate_kilobits,omitempty"`
	ReducedSeconds   uint32  `json:"reduced_seconds,omitempty"` // with videos in less than the best, or paused
	QuietMs          uint32  `json:"quiet_ms,omitempty"`        // the longest time without a packet
	KeyframesAsked   uint32  `json:"keyframes_asked,omitempty"`
	Packets          int64   `json:"packets,omitempty"` // refused or not sent by the server
	LateMs           uint32  `json:"late_ms,omitempty"` // work of the server
	Times            int     `json:"times,omitempty"`
}
