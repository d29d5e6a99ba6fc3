//go:build linux

package endpoint

import (
	"net/netip"
	"testing"
	"time"
)

func TestPayloadsAreChecked(t *testing.T) {
	for _, video := range []bool{false, true} {
		for _, first := range []bool{false, true} {
			for _, key := range []bool{false, true} {
				b := appendPayload(nil, video, 70_000, 100, first, key, 300)
				if len(b) != 100 {
					t.Errorf("video %v, first %v, key %v: %d bytes", video, first, key, len(b))
				}
				if video { // what a server may rewrite
					b[2], b[3] = 0x80, 5
				}
				if n, ok := packetNumber(b, video); n != 70_000 || !ok {
					t.Errorf("video %v, first %v, key %v: number %d, right %v", video, first, key, n, ok)
				}
				b[50] ^= 1
				if _, ok := packetNumber(b, video); ok {
					t.Errorf("video %v, first %v, key %v: a changed payload passes", video, first, key)
				}
			}
		}
	}
	if _, ok := packetNumber(nil, false); ok {
		t.Error("an empty payload passes")
	}
}

func TestFramesAreSplitEqually(t *testing.T) {
	k := Kind{Video: true, FramesPerSecond: 30, Packets: 5, Bytes: 1000}
	total := 0
	for n := range uint32(21) {
		sizes := k.sizes(n, nil)
		for i, size := range sizes {
			total += size
			if i > 0 && (size < sizes[i-1] || size > sizes[0]+1) {
				t.Errorf("frame %d: %v", n, sizes)
			}
		}
		if len(sizes) != 5 {
			t.Errorf("frame %d: %v", n, sizes)
		}
	}
	if want := 21 * 5000; total != want {
		t.Errorf("%d bytes in all, want %d", total, want)
	}
	if got := (Kind{FramesPerSecond: 50, Packets: 1, Bytes: 84}).sizes(3, nil); len(got) != 1 || got[0] != 84 {
		t.Errorf("a voice: %v", got)
	}
}

// send sends datagrams from one socket to another.
func send(t *testing.T, from *Socket, to netip.AddrPort, datagrams ...[]byte) {
	t.Helper()
	for _, d := range datagrams {
		if _, err := from.WriteToAddrPort(d, to); err != nil {
			t.Fatal(err)
		}
	}
}

func newSocket(t *testing.T, stamps bool) *Socket {
	t.Helper()
	s, err := NewSocket(stamps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// datagram is one of 20 bytes that begins with two that are given.
func datagram(first, second byte) []byte {
	b := make([]byte, 20)
	b[0], b[1] = first, second
	return b
}

func TestKernelDropsAndCountsRTP(t *testing.T) {
	from, to := newSocket(t, false), newSocket(t, false)
	if err := to.DropRTP(); err != nil {
		t.Fatal(err)
	}
	before, err := to.Dropped()
	if err != nil {
		t.Fatal(err)
	}
	send(t, from, to.Addr(),
		datagram(0x80, 111), datagram(0x90, 0x80|96), datagram(0xbf, 63), // RTP
		datagram(0x80, 200), datagram(0x00, 1), datagram(0x16, 0xfe), // RTCP, STUN, DTLS
	)
	buf := make([]byte, 100)
	for _, want := range []byte{200, 1, 0xfe} {
		if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, addr, err := to.ReadFromAddrPort(buf)
		if err != nil || n != 20 || buf[1] != want || addr != from.Addr() {
			t.Fatalf("read %d bytes with %d from %v, %v; want %d", n, buf[1], addr, err, want)
		}
	}
	after, err := to.Dropped()
	if err != nil || after-before != 3 {
		t.Errorf("dropped %d, %v; want 3", after-before, err)
	}
}

func TestSocketsStampRTPAndKeepIt(t *testing.T) {
	from, to := newSocket(t, true), newSocket(t, true)
	packet := datagram(0x80, 111)
	packet[2], packet[3], packet[11] = 1, 2, 9
	begin := time.Now()
	send(t, from, to.Addr(), packet, datagram(0, 1))
	buf := make([]byte, 100)
	n, _, err := to.ReadFromAddrPort(buf)
	if err != nil || n != 20 || buf[0] != 0 {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	sent, came := from.Stamps(), to.Stamps()
	if len(sent) != 1 || len(came) != 1 {
		t.Fatalf("stamps: %v, %v", sent, came)
	}
	for _, s := range []Stamp{sent[0], came[0]} {
		if s.SSRC != 9 || s.Sequence != 0x102 || s.At.Before(begin.Add(-time.Millisecond)) || s.At.After(time.Now().Add(time.Millisecond)) {
			t.Errorf("stamp %v", s)
		}
	}
}
