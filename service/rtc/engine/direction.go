package engine

import (
	"slices"
	"strings"

	"github.com/pion/sdp/v3"
)

// ReceiveNothing makes all our descriptions say that no section is received on: answers to what the
// endpoint offers to send, and our offers (RFC 3264 section 6.1). It is called before the first of
// them.
func (p *Peer) ReceiveNothing() { p.sendsOnly = true }

// direct removes from a description of ours what the peer is not to receive.
func (p *Peer) direct(d *sdp.SessionDescription) {
	if !p.sendsOnly {
		return
	}
	for _, m := range d.MediaDescriptions {
		if !isMedia(m) || rejected(m) {
			continue
		}
		only := sdp.AttrKeyInactive
		if directed(m, sdp.AttrKeySendOnly) {
			only = sdp.AttrKeySendOnly
		}
		// With nothing received there are no streams of a simulcast to choose from (RFC 8853 section 5.3).
		m.Attributes = slices.DeleteFunc(slices.Clone(m.Attributes), func(a sdp.Attribute) bool {
			switch a.Key {
			case sdp.AttrKeySendRecv, sdp.AttrKeySendOnly, sdp.AttrKeyRecvOnly, sdp.AttrKeyInactive:
				return true
			case "rid", "simulcast":
				return slices.Contains(strings.Fields(a.Value), "recv")
			}
			return false
		})
		m.Attributes = append(m.Attributes, sdp.NewPropertyAttribute(only))
	}
}
