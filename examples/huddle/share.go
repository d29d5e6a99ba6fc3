package main

import (
	"encoding/json"
	"fmt"
	"regexp"

	"rtcd/client"
)

// streamID is what browsers call a MediaStream: a UUID, in braces in some.
var streamID = regexp.MustCompile(`^[A-Za-z0-9{}_-]{1,64}$`)

// parseStream returns the id in {"stream":"..."}.
func parseStream(data json.RawMessage) (string, error) {
	var v struct {
		Stream string `json:"stream"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return "", fmt.Errorf("stream of the browser: %w", err)
	}
	if !streamID.MatchString(v.Stream) {
		return "", fmt.Errorf("stream of the browser: id %.20q", v.Stream)
	}
	return v.Stream, nil
}

// handleVideo passes on what a browser says of its camera and screen.
func (s *server) handleVideo(p *participant, kind string, data json.RawMessage) error {
	var stream string
	if kind == "video-on" || kind == "screen-on" {
		var err error
		if stream, err = parseStream(data); err != nil {
			return err
		}
	}
	switch kind {
	case "screen-on":
		return s.hub.share(p, stream)
	case "screen-off":
		return s.hub.unshare(p)
	}
	return s.hub.setCamera(p, stream)
}

// Limits on the layers of a video.
const (
	maxLayers    = 4
	maxDimension = 1 << 14
)

// layerID is the rid of a layer (RFC 8851, section 10).
var layerID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,16}$`)

// A layer is one of the encodings in which a browser sends a video.
type layer struct {
	RID    string  `json:"rid"`
	Height int     `json:"height"` // pixels
	FPS    float64 `json:"fps"`    // at most; 0: not limited
}

// parseLayers returns the layers of videos as they are told to others.
func parseLayers(data json.RawMessage) (json.RawMessage, error) {
	var v struct {
		Video  []layer `json:"video,omitempty"`
		Screen []layer `json:"screen,omitempty"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("layers of the browser: %w", err)
	}
	for _, layers := range [][]layer{v.Video, v.Screen} {
		if len(layers) > maxLayers {
			return nil, fmt.Errorf("layers of the browser: %d of a video", len(layers))
		}
		for _, l := range layers {
			if !layerID.MatchString(l.RID) || l.Height < 1 || l.Height > maxDimension || l.FPS < 0 || l.FPS > 1000 {
				return nil, fmt.Errorf("layers of the browser: rid %.20q, height %d, fps %g", l.RID, l.Height, l.FPS)
			}
		}
	}
	return json.Marshal(v)
}

// setLayers tells the room in which layers a participant sends its videos.
func (h *hub) setLayers(p *participant, data json.RawMessage) error {
	layers, err := parseLayers(data)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[p.id] != p {
		return nil // its session just ended
	}
	p.layers = layers
	self := p.person()
	h.tellRoom(p.room, notice{Type: "person", Person: &self})
	return nil
}

// setCamera tells rtcd and the room of a participant's camera; without a stream it is off.
func (h *hub) setCamera(p *participant, stream string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[p.id] != p {
		return nil // its session just ended
	}
	p.camera = stream != ""
	self := p.person()
	h.tellRoom(p.room, notice{Type: "person", Person: &self})
	if stream == "" {
		return h.rtcd.SendSignal(p.id, client.SignalVideoOff, nil)
	}
	return h.announce(p, client.SignalVideoOn, "videoStreamID", stream)
}

// share makes a participant the sharer of its room, or tells it who is. The browser sends its
// screen once it hears that it is the sharer: by then rtcd has been told.
func (h *hub) share(p *participant, stream string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[p.id] != p {
		return nil // as above
	}
	if other := h.sharers[p.room]; other != nil && other != p {
		h.tell(p, notice{Type: "screen", ID: other.id})
		return nil
	}
	if err := h.announce(p, client.SignalScreenOn, "screenStreamID", stream); err != nil {
		return err
	}
	h.sharers[p.room] = p
	h.tellRoom(p.room, notice{Type: "screen", ID: p.id})
	return nil
}

// unshare ends the share of a participant, if it is the sharer.
func (h *hub) unshare(p *participant) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopSharing(p) {
		return nil
	}
	return h.rtcd.SendSignal(p.id, client.SignalScreenOff, nil)
}

// stopSharing tells the room that a participant shares no more, with the lock held. It reports
// whether it did.
func (h *hub) stopSharing(p *participant) bool {
	if h.sharers[p.room] != p {
		return false
	}
	delete(h.sharers, p.room)
	h.tellRoom(p.room, notice{Type: "screen"})
	return true
}

// sharer returns the id of who shares in a room, or nothing, with the lock held.
func (h *hub) sharer(room string) string {
	if p := h.sharers[room]; p != nil {
		return p.id
	}
	return ""
}

func (h *hub) announce(p *participant, t client.SignalType, key, stream string) error {
	data, err := json.Marshal(map[string]string{key: stream})
	if err != nil {
		return err
	}
	return h.rtcd.SendSignal(p.id, t, data)
}
