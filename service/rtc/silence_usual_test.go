package rtc_test

import (
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// Who says that they are going to send more or less is judged by what they send from then on: silence
// after a camera went off is none, and who begins to speak is missed as soon as anybody who speaks.
func TestAnnouncementsChangeWhatIsUsual(t *testing.T) {
	for st, data := range map[wire.SignalType]string{
		wire.SignalMute: "", wire.SignalUnmute: "", wire.SignalScreenOn: `{"screenStreamID":"s"}`, wire.SignalScreenOff: "",
		wire.SignalVideoOn: `{"videoStreamID":"v"}`, wire.SignalVideoOff: "",
	} {
		b := rtctest.NewBackend(t, nil)
		if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "u", SessionID: "s0"}); err != nil {
			t.Fatal(err)
		}
		settle := func() {
			done := make(chan struct{})
			b.Server.Post("g", "s0", func() { close(done) })
			<-done
		}
		announce(t, b, "s0", wire.SignalICE, `{"candidate":""}`)
		settle()
		if b.Server.Relaxed("g", "s0") {
			t.Error("something that changes nothing counts")
		}
		announce(t, b, "s0", st, data)
		settle()
		if !b.Server.Relaxed("g", "s0") {
			t.Errorf("message %v does not count", st)
		}
	}
}
