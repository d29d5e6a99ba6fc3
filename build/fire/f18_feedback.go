//go:build linux

package main

import (
	"context"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"rtcd/build/fire/load"
)

var feedbackStorm = scenario{
	id: "F18", title: "receivers ask for keyframes and repairs without end",
	criterion: "the sender is asked for a keyframe once a second, repairs are at most a quarter of what is sent, others lose nothing",
	run: func(ctx context.Context, t *trial) error {
		if _, err := t.ground(steadyHosts()...); err != nil {
			return err
		}
		p, err := t.steady(ctx, nil, func(c *load.PartyConfig) { c.Calls, c.People = 1, 7 })
		if err != nil {
			return err
		}
		sharer, storming := p.People[0], p.People[1:6]
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		w.Excuse(storming...)
		before, err := p.Server.Metrics(ctx)
		if err != nil {
			return err
		}
		asked, began := sharer.KeyframesAsked(), time.Now()
		storm, stop := context.WithTimeout(ctx, t.lasting(6*time.Second, 60*time.Second))
		defer stop()
		done := make(chan int)
		for i, q := range storming {
			go func() { done <- feedback(storm, q, uint16(i*1000)) }()
		}
		for range storming {
			t.result.Count += <-done
		}
		took := time.Since(began)
		asked = sharer.KeyframesAsked() - asked
		after, err := p.Server.Metrics(ctx)
		if err != nil {
			return err
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		delta := func(name string) float64 { return after[name] - before[name] }
		resent, forwarded := delta("rtcd_media_resent_packets_total"), delta("rtcd_media_forwarded_packets_total")
		t.say("%d packets of feedback in %v: %d keyframes asked for, %.0f packets resent, %.0f forwarded", t.result.Count,
			took.Round(time.Second), asked, resent, forwarded)
		t.result.More["keyframes_asked"], t.result.More["resent"], t.result.More["forwarded"] = asked, resent, forwarded
		t.expect(t.result.Count > 100, "only %d packets of feedback were sent", t.result.Count)
		t.expect(float64(asked) <= took.Seconds()+2, "%d keyframes were asked for in %v", asked, took)
		t.expect(resent <= 0.25*forwarded, "%.0f packets resent for %.0f forwarded", resent, forwarded)
		t.unbroken(figures)
		t.lossless(figures, 0)
		t.expect(figures.VideoMissing == 0 || figures.ClientOverflow > 0, "%d packets of the screen did not come to who asked for nothing", figures.VideoMissing)
		if blind := p.AwaitSeeing(ctx, 15*time.Second); len(blind) > 0 {
			t.shortfall("%d do not see the screen afterwards", len(blind))
		}
		return t.leaveIdle(ctx, p)
	},
}

// feedback sends, until the context ends, 200 packets a second about each video that somebody is sent,
// each with 5 PLI, FIR, 85 packets to repair, REMB, and TWCC that makes no sense.
func feedback(ctx context.Context, q *load.Person, from uint16) (sent int) {
	pc := q.Endpoint().PC()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sent
		}
		for _, r := range pc.GetReceivers() {
			track := r.Track()
			if track == nil || track.Kind() != webrtc.RTPCodecTypeVideo || track.SSRC() == 0 {
				continue
			}
			ssrc := uint32(track.SSRC())
			parts := []rtcp.Packet{
				&rtcp.FullIntraRequest{MediaSSRC: ssrc, FIR: []rtcp.FIREntry{{SSRC: ssrc, SequenceNumber: uint8(sent)}}},
				&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1e9, SSRCs: []uint32{ssrc}},
				&rtcp.TransportLayerCC{
					Header:             rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5},
					BaseSequenceNumber: from, PacketStatusCount: 5000,
					PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: 0, RunLength: 5000}},
				},
			}
			nack := &rtcp.TransportLayerNack{MediaSSRC: ssrc}
			for range 5 {
				parts = append(parts, &rtcp.PictureLossIndication{MediaSSRC: ssrc})
				nack.Nacks = append(nack.Nacks, rtcp.NackPair{PacketID: from, LostPackets: 0xffff})
				from += 17
			}
			if pc.WriteRTCP(append(parts, nack)) == nil {
				sent++
			}
		}
	}
}
