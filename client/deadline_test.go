package client

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// acceptUpgrade is the server's side of a WebSocket handshake.
func acceptUpgrade(conn net.Conn) error {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	return err
}

// Each ping of the server keeps the connection for 25 s; without one it is given up.
func TestSilentServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		accepted := make(chan error, 1)
		go func() { accepted <- acceptUpgrade(far) }()
		dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return near, nil }}
		ws, _, err := dialer.Dial("ws://rtcd/ws", nil)
		must(t, err, <-accepted)
		pongs := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, far) // ends with the connection
			pongs <- n
		}()

		c := newClient(t, Config{URL: "http://rtcd", ClientID: testID, AuthKey: testKey})
		conn := &Conn{client: c, ctx: t.Context(), cancel: func(error) {}, out: newOutbox(1, 1), events: make(chan Event, 8)}
		began := time.Now()
		lost := make(chan error, 1)
		go func() { lost <- conn.serve(ws, false) }()
		for range 4 {
			time.Sleep(20 * time.Second)
			if _, err := far.Write([]byte{0x89, 0}); err != nil { // a ping
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		err = <-lost
		if got := time.Since(began); got != 80*time.Second+readTimeout || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("given up after %v with %v", got, err)
		}
		if n := <-pongs; n != 4*6 {
			t.Errorf("%d bytes of pongs, want four of 6", n)
		}
	})
}

// A Conn that waits to connect again does so as long as it is told, and ends with its context.
func TestReopenIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{URL: "http://rtcd", ClientID: testID, AuthKey: testKey, MinBackoff: time.Minute, MaxBackoff: time.Minute}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, ErrClosed)
		defer cancel()
		conn := &Conn{client: newClient(t, cfg), ctx: ctx}
		began, failures := time.Now(), 0
		if _, err := conn.reopen(&failures); err != ErrClosed || time.Since(began) != time.Second || failures != 0 {
			t.Errorf("%v after %v, %d attempts", err, time.Since(began), failures)
		}
	})
}
