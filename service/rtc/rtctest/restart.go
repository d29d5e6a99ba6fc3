package rtctest

import (
	"context"
	"fmt"

	"github.com/pion/webrtc/v4"
)

// RestartICE makes an offer that restarts ICE, as no known client does, and without the lock.
func (e *Endpoint) RestartICE(ctx context.Context) error {
	e.negotiate.Lock()
	defer e.negotiate.Unlock()
	offer, err := e.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		return fmt.Errorf("restart ice: %w", err)
	}
	if err := e.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("restart ice: %w", err)
	}
	if err := e.describe(offer); err != nil {
		return err
	}
	select {
	case sdp := <-e.answers:
		return e.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp})
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}
