package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/service/api/wire"
)

// toyServer stands in for rtcd so that the examples run by themselves: it answers the first
// offer of a session and closes a session that is left.
func toyServer() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/register":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintln(w, `{"code":"400","error":"registration failed: already registered"}`)
			return
		case "/system":
			fmt.Fprintln(w, `{"cpu_load":0.25}`)
			return
		case "/ws":
		default:
			http.NotFound(w, r)
			return
		}
		var upgrader websocket.Upgrader
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		reply := wire.AppendHello(nil, "my-backend", "conn-1")
		for ws.WriteMessage(websocket.BinaryMessage, reply) == nil {
			for reply = nil; reply == nil; {
				_, data, err := ws.ReadMessage()
				if err != nil {
					return
				}
				switch m, _ := wire.Decode(data); m.Type {
				case wire.TypeRTC:
					answer := m.Signal
					answer.Data = []byte(`{"type":"answer","sdp":"v=0..."}`)
					reply = wire.AppendRTC(nil, answer)
				case wire.TypeLeave:
					reply = wire.AppendClose(nil, m.SessionID)
				}
			}
		}
	}))
}

// A backend joins a user to a call and carries signalling between the user's browser and the
// server. Here the browser's offer is made up, and the user leaves once it has been answered.
func Example() {
	server := toyServer() // in your program: the server's URL
	defer server.Close()
	ctx := context.Background()

	c, err := client.New(client.Config{
		URL:      server.URL,
		ClientID: "my-backend",
		AuthKey:  "a secret of 32 to 72 bytes, kept",
	})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := c.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	// When a user wants to join, and whenever its browser has something to say:
	if err := conn.Join(client.Join{CallID: "call-1", UserID: "ann", SessionID: "session-1"}); err != nil {
		log.Fatal(err)
	}
	if err := conn.SendDescription("session-1", client.SDP{Type: "offer", SDP: "v=0..."}); err != nil {
		log.Fatal(err)
	}

	// What the server says, in one place, for all users:
	for event := range conn.Events() {
		switch ev := event.(type) {
		case client.Connected:
			fmt.Println("connected")
		case client.Disconnected:
			fmt.Println("lost, trying again:", ev.Err)
		case client.Description:
			fmt.Println("to the browser of", ev.SessionID, string(ev.Data))
			if err := conn.Leave(ev.SessionID); err != nil {
				log.Print(err)
			}
		case client.Candidate:
			fmt.Println("to the browser of", ev.SessionID, string(ev.Data))
		case client.Voice:
			fmt.Println(ev.UserID, "speaks:", ev.On)
		case client.Closed:
			fmt.Println("session ended:", ev.SessionID)
			return
		}
	}
	log.Fatal(conn.Err())
	// Output:
	// connected
	// to the browser of session-1 {"type":"answer","sdp":"v=0..."}
	// session ended: session-1
}

// Registering is done once. That it was done before is no fault.
func ExampleClient_Register() {
	server := toyServer()
	defer server.Close()
	c, err := client.New(client.Config{
		URL:      server.URL,
		ClientID: "my-backend",
		AuthKey:  "a secret of 32 to 72 bytes, kept",
		AdminKey: "only where the server has one",
	})
	if err != nil {
		log.Fatal(err)
	}
	err = c.Register(context.Background())
	switch {
	case errors.Is(err, client.ErrAlreadyRegistered):
		fmt.Println("registered before")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println("registered")
	}
	// Output: registered before
}

// Of several servers, the one with the smallest load takes a new call.
func ExampleClient_System() {
	server := toyServer()
	defer server.Close()
	c, err := client.New(client.Config{
		URL: server.URL, ClientID: "my-backend", AuthKey: "a secret of 32 to 72 bytes, kept",
	})
	if err != nil {
		log.Fatal(err)
	}
	load, err := c.System(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(load)
	// Output: 0.25
}

// That a call is not found proves that it is over; other errors prove nothing.
func ExampleClient_Sessions() {
	server := toyServer()
	defer server.Close()
	c, err := client.New(client.Config{
		URL: server.URL, ClientID: "my-backend", AuthKey: "a secret of 32 to 72 bytes, kept",
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Sessions(context.Background(), "call-1"); errors.Is(err, client.ErrNotFound) {
		fmt.Println("the call is over")
	}
	// Output: the call is over
}
