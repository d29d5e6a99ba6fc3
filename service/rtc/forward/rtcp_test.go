package forward

import (
	"math"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// find returns the parts of a kind.
func find[T rtcp.Packet](parts []rtcp.Packet) (found []T) {
	for _, p := range parts {
		if t, ok := p.(T); ok {
			found = append(found, t)
		}
	}
	return found
}

// second lets a second of ticks pass.
func (r *rig) second() {
	for range reportTicks {
		r.tick()
		r.advance(TickInterval)
	}
}

func TestReceiverReport(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	e.publish(PublicationConfig{})
	e.seq = 65500
	ntp := uint64(0x1122334455667788)
	e.say(1) // reports of streams that are not known tell nothing
	e.tell(&rtcp.SenderReport{SSRC: e.ssrc, NTPTime: ntp, RTPTime: e.ts})
	e.say(49)
	e.next(0) // lost
	e.next(0)
	for range 50 { // each a packet of 20 ms, but 30 ms apart
		e.push(e.seal(e.next(0)))
		r.advance(30 * time.Millisecond)
	}
	r.second()
	told := e.told()
	reports := find[*rtcp.ReceiverReport](told)
	if len(reports) != 1 || len(reports[0].Reports) != 1 {
		t.Fatalf("reports %+v, want one of one stream", reports)
	}
	got := reports[0].Reports[0]
	if got.SSRC != e.ssrc || got.TotalLost != 2 || got.FractionLost != 2*256/102 || got.LastSequenceNumber != 65500+101 {
		t.Errorf("report %+v", got)
	}
	if reports[0].SSRC != e.peer.ssrc {
		t.Errorf("sender %d, want %d", reports[0].SSRC, e.peer.ssrc)
	}
	if got.LastSenderReport != 0x33445566 {
		t.Errorf("last sender report %x, want 33445566", got.LastSenderReport)
	}
	// The report is made at the tick of the peer's phase.
	since := float64(got.Delay) / 65536
	if want := (49*20*time.Millisecond + 50*30*time.Millisecond).Seconds(); since < want-0.001 || since > want+1 {
		t.Errorf("delay since last sender report %v s, want %v to %v", since, want, want+1)
	}
	// 50 packets with transits that differ by 10 ms, from 0: J = 480 (1 - (15/16)^50).
	if want := 480 * (1 - math.Pow(15./16, 50)); math.Abs(float64(got.Jitter)-want) > 16 {
		t.Errorf("jitter %d, want about %.0f", got.Jitter, want)
	}
	names := find[*rtcp.SourceDescription](told)
	if len(names) != 1 || names[0].Chunks[0].Source != e.peer.ssrc || names[0].Chunks[0].Items[0].Text != ownName {
		t.Errorf("source description %+v", names)
	}

	r.second()
	if got := find[*rtcp.ReceiverReport](e.told()); len(got) != 0 {
		t.Errorf("reports %+v of a stream that is quiet, want none", got)
	}
	e.say(10)
	r.second()
	reports = find[*rtcp.ReceiverReport](e.told())
	if len(reports) != 1 || reports[0].Reports[0].FractionLost != 0 || reports[0].Reports[0].TotalLost != 2 {
		t.Errorf("reports %+v, want one without new loss", reports)
	}
}

func TestSenderReport(t *testing.T) {
	for _, told := range []bool{false, true} {
		r := newRig(t)
		speaker, listener := r.endpoint(gcm), r.endpoint(cm)
		sub := listener.subscribe(speaker.publish(PublicationConfig{}))
		first := speaker.say(1)[0]
		start := r.clock().Add(-20 * time.Millisecond)
		if told {
			// The sender's clock is 1,000 s off, and it says that its packet is 100 units older.
			speaker.tell(&rtcp.SenderReport{
				SSRC: speaker.ssrc, NTPTime: toNTP(r.clock().Add(1000 * time.Second)), RTPTime: first.Timestamp + 960 + 100,
			})
		}
		sent := append([]*rtp.Packet{first}, speaker.say(49)...)
		var octets uint32
		for _, p := range sent {
			octets += uint32(len(p.Payload))
		}
		for i := 0; ; i++ {
			if i == 10 {
				t.Fatal("no report within a second")
			}
			r.tick()
			parts := listener.told()
			reports := find[*rtcp.SenderReport](parts)
			if len(reports) == 0 {
				r.advance(TickInterval)
				continue
			}
			got := reports[0]
			if got.SSRC != sub.ssrc || got.PacketCount != 50 || got.OctetCount != octets || got.NTPTime != toNTP(r.clock()) {
				t.Errorf("report %+v, want ssrc %d, 50 packets, %d octets, time %x", got, sub.ssrc, octets, toNTP(r.clock()))
			}
			want := first.Timestamp + uint32(r.clock().Sub(start).Milliseconds())*48
			if told {
				want += 100
			}
			if d := int32(got.RTPTime - want); d < -1 || d > 1 {
				t.Errorf("timestamp %d, want %d (sender reports: %v)", got.RTPTime, want, told)
			}
			names := find[*rtcp.SourceDescription](parts)
			if len(names) != 1 || names[0].Chunks[0].Source != sub.ssrc || names[0].Chunks[0].Items[0].Text != "session1" {
				t.Errorf("source description %+v, want the sender's", names)
			}
			break
		}
		r.second()
		if got := find[*rtcp.SenderReport](listener.told()); len(got) != 0 {
			t.Errorf("reports %+v of a subscription that sends nothing, want none", got)
		}
	}
}

// A sender cannot make the receivers' clocks run anywhere it likes.
func TestSenderReportOfNonsenseIsNotBelieved(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	listener.subscribe(speaker.publish(PublicationConfig{}))
	p := speaker.say(1)[0]
	speaker.tell(&rtcp.SenderReport{SSRC: speaker.ssrc, NTPTime: math.MaxUint64, RTPTime: p.Timestamp + 1<<30})
	speaker.say(1)
	r.second()
	got := find[*rtcp.SenderReport](listener.told())
	if len(got) != 1 || got[0].RTPTime-p.Timestamp > 2*48000 {
		t.Errorf("reports %+v, want one near %d", got, p.Timestamp)
	}
}

func TestManySubscriptionsShareReports(t *testing.T) {
	r := newRig(t)
	listener := r.endpoint(gcm)
	const n = 40
	for range n {
		speaker := r.endpoint(gcm)
		listener.subscribe(speaker.publish(PublicationConfig{}))
		speaker.say(1)
	}
	listener.heard()
	packets := 0
	for range reportTicks {
		r.tick()
		packets += len(r.wire[listener.path])
		for _, b := range r.wire[listener.path] {
			if len(b) > maxCompound+40 {
				t.Errorf("an RTCP packet of %d bytes", len(b))
			}
		}
		parts := listener.told()
		seen := make(map[uint32]bool)
		for _, sr := range find[*rtcp.SenderReport](parts) {
			seen[sr.SSRC] = true
		}
		named := 0
		for _, s := range find[*rtcp.SourceDescription](parts) {
			named += len(s.Chunks)
		}
		if len(parts) > 0 && (len(seen) != n || named != n) {
			t.Errorf("%d reports and %d names, want %d each", len(seen), named, n)
		}
		r.advance(TickInterval)
	}
	if packets != 3 {
		t.Errorf("%d RTCP packets in a second, want 3", packets)
	}
}

// received lists the transport-wide numbers that a feedback packet says have arrived.
func received(t *testing.T, fb *rtcp.TransportLayerCC) (at map[uint16]time.Duration) {
	t.Helper()
	at = make(map[uint16]time.Duration)
	seq := fb.BaseSequenceNumber
	now := time.Duration(fb.ReferenceTime) * 64 * time.Millisecond
	deltas := fb.RecvDeltas
	status := func(symbol uint16) {
		if seq == fb.BaseSequenceNumber+fb.PacketStatusCount {
			return
		}
		if symbol != rtcp.TypeTCCPacketNotReceived {
			now += time.Duration(deltas[0].Delta) * time.Microsecond
			at[seq] = now
			deltas = deltas[1:]
		}
		seq++
	}
	for _, c := range fb.PacketChunks {
		switch c := c.(type) {
		case *rtcp.RunLengthChunk:
			for range c.RunLength {
				status(c.PacketStatusSymbol)
			}
		case *rtcp.StatusVectorChunk:
			for _, s := range c.SymbolList {
				status(s)
			}
		}
	}
	if seq != fb.BaseSequenceNumber+fb.PacketStatusCount || len(deltas) != 0 {
		t.Fatalf("%d statuses of %d, %d deltas too many", seq-fb.BaseSequenceNumber, fb.PacketStatusCount, len(deltas))
	}
	return at
}

func TestTransportFeedback(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	e.twcc = 65530
	start := r.plane.start
	sent := make(map[uint16]time.Duration)
	told := make(map[uint16]time.Duration)
	var late []byte
	var lateAt uint16
	feedbacks := 0
	tell := func() {
		r.tick()
		for _, fb := range find[*rtcp.TransportLayerCC](e.told()) {
			if fb.FbPktCount != uint8(feedbacks) || fb.SenderSSRC != e.peer.ssrc || fb.MediaSSRC != e.ssrc {
				t.Fatalf("feedback %+v", fb)
			}
			feedbacks++
			for seq, at := range received(t, fb) {
				told[seq] = at
			}
		}
	}
	for i := range 200 {
		seq := e.twcc
		b := e.seal(e.next(0))
		switch {
		case i%9 == 4: // lost
			delete(sent, seq)
			continue
		case i%20 == 7:
			late, lateAt = b, seq
			continue
		}
		e.push(b)
		sent[seq] = r.clock().Sub(start)
		r.advance(time.Duration(i%4) * 3210 * time.Microsecond)
		if i%20 == 19 && late != nil {
			e.push(late)
			late = nil
			sent[lateAt] = r.clock().Sub(start)
			r.advance(40 * time.Second / 3) // further than a delta reaches
		}
		if i%15 == 14 {
			tell()
		}
	}
	tell()
	if feedbacks < 14 {
		t.Errorf("%d feedback packets, want one for each tick at least", feedbacks)
	}
	if len(told) != len(sent) {
		t.Errorf("%d packets told of, want %d", len(told), len(sent))
	}
	for seq, at := range sent {
		if got, ok := told[seq]; !ok || (got-at).Abs() > twccUnit {
			t.Errorf("packet %d: arrived at %v, told %v, %v", seq, at, got, ok)
		}
	}
	tell()
	if n := feedbacks; n != int(e.peer.in.arrivals.count) {
		t.Errorf("%d feedback packets after %d", e.peer.in.arrivals.count, n)
	}
}

// However the numbers jump, what is told fits a packet and can be parsed.
func TestTransportFeedbackOfJumps(t *testing.T) {
	var a arrivals
	now := time.Duration(0)
	for _, seq := range []uint16{0, 1, 400, 401, 1500, 1, 40000, 39999, 39700, 7, 65535, 200, 32968} {
		now += 90 * time.Millisecond
		a.record(seq, 1, now)
		for range 3 {
			if !a.pending() {
				break
			}
			b := a.appendFeedback(nil, 2)
			if len(b) > maxCompound || len(b)%4 != 0 {
				t.Errorf("after %d: %d bytes", seq, len(b))
			}
			fb := new(rtcp.TransportLayerCC)
			if err := fb.Unmarshal(b); err != nil {
				t.Fatalf("after %d: %v", seq, err)
			}
			if at, ok := received(t, fb)[seq]; ok && (at-now).Abs() > twccUnit {
				t.Errorf("packet %d told at %v, want %v", seq, at, now)
			}
		}
	}
}

func TestFeedbackIsCountedAndPassedOn(t *testing.T) {
	r := newRig(t)
	speaker, listener, other := r.endpoint(gcm), r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{Source: Camera})
	sub := listener.subscribe(pub)
	speaker.say(1)
	r.advance(keyframeEvery)
	requested := func() uint64 { return r.plane.Stats().Keyframes - 1 } // but for the one at the start
	pli := &rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: sub.ssrc}
	for range 10 {
		listener.tell(pli)
		r.advance(50 * time.Millisecond)
	}
	listener.tell(&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: 4711})
	other.tell(pli) // not its own subscription
	if n := requested(); n != 1 {
		t.Errorf("%d requests passed on within half a second, want 1", n)
	}
	r.advance(keyframeEvery)
	listener.tell(&rtcp.FullIntraRequest{SenderSSRC: 1, FIR: []rtcp.FIREntry{{SSRC: sub.ssrc}}})
	if n := requested(); n != 2 {
		t.Errorf("%d requests, want 2: FIR counts as well", n)
	}
	listener.tell(
		&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: sub.ssrc, Nacks: []rtcp.NackPair{{PacketID: 1}}},
		&rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: 1, Bitrate: 1000, SSRCs: []uint32{sub.ssrc}},
		&rtcp.TransportLayerCC{
			Header: rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5}, PacketStatusCount: 1,
			PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{RunLength: 1}},
		},
		&rtcp.Goodbye{Sources: []uint32{1}},
	)
	got := r.plane.Stats().Feedbacks
	for kind, want := range map[Feedback]uint64{
		FeedbackPLI: 12, FeedbackFIR: 1, FeedbackNACK: 1, FeedbackREMB: 1, FeedbackTWCC: 1, FeedbackBye: 1,
	} {
		if got[kind] != want {
			t.Errorf("%d %s counted, want %d", got[kind], kind, want)
		}
	}
}

func TestReceptionReportsOfSubscribers(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	sub := listener.subscribe(speaker.publish(PublicationConfig{}))
	speaker.say(1)
	r.second()
	sr := find[*rtcp.SenderReport](listener.told())
	if len(sr) != 1 {
		t.Fatalf("%d sender reports, want 1", len(sr))
	}
	sentAt := time.Duration(int64(sr[0].NTPTime>>32)-2_208_988_800)*time.Second + time.Duration(sr[0].NTPTime&0xffffffff*1e9>>32)
	held := 300 * time.Millisecond
	trip := r.clock().Add(time.Second).Sub(time.Unix(0, 0)) - sentAt - held
	r.advance(time.Second)
	listener.tell(&rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{
		SSRC: sub.ssrc, FractionLost: 64, TotalLost: 17, Jitter: 240,
		LastSenderReport: uint32(sr[0].NTPTime >> 16), Delay: uint32(held * 65536 / time.Second),
	}}})
	got := sub.Stats()
	if got.FractionLost != 0.25 || got.Lost != 17 || got.Jitter != 240 || (got.RoundTrip-trip).Abs() > time.Millisecond {
		t.Errorf("stats %+v, want a quarter lost, 17 in all, jitter 240, round trip %v", got, trip)
	}
	listener.tell(&rtcp.SenderReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{SSRC: sub.ssrc, TotalLost: 0xffffff}}})
	if got := sub.Stats(); got.Lost != -1 {
		t.Errorf("lost %d, want -1: the count is signed", got.Lost)
	}
}

func TestRTCPRateIsLimited(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	for range maxRTCP + 50 {
		e.tell(&rtcp.ReceiverReport{SSRC: 1})
	}
	s := r.plane.Stats()
	if s.Feedbacks[FeedbackRR] != maxRTCP || s.RateLimited != 50 || s.Drops[DropRate] != 50 {
		t.Errorf("%d reports accepted, %d and %d dropped, want %d, 50, 50", s.Feedbacks[FeedbackRR], s.RateLimited, s.Drops[DropRate], maxRTCP)
	}
	r.advance(time.Second)
	for i := range maxSSRCs {
		if i%100 == 0 {
			r.advance(time.Second)
		}
		e.tell(&rtcp.ReceiverReport{SSRC: uint32(1000 + i)})
	}
	if n := r.drops(DropUnknownSSRC); n != 1 {
		t.Errorf("%d senders of RTCP too many, want 1: %d in all and one before", n, maxSSRCs)
	}
}
