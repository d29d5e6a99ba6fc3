package forward

import "time"

// Heard returns when the latest authentic packet of the endpoint came, on the data plane's clock; 0:
// none has.
func (peer *Peer) Heard() time.Duration {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	return peer.in.sampled.last
}
