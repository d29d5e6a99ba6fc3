// Package client speaks to an rtcd server on behalf of a backend: it registers, asks for load and
// sessions over HTTP, and holds the WebSocket over which sessions are joined, signalled and left.
//
// A Client is the HTTP side. Its Connect opens a Conn, which stays up for as long as it is
// wanted: a lost connection is opened again with growing, jittered delays, every session that is
// going on is claimed for the new connection, and what was sent meanwhile follows in order.
//
// # Guarantees of a Conn
//
//   - Sending never blocks. A message is queued (Config.SendQueue messages, Config.SendQueueBytes
//     bytes) and sent when the connection is up; with the queue full, sending fails with
//     ErrQueueFull, after the end with ErrClosed. Messages leave in the order they were sent.
//   - A message is taken off the queue once it is written to the socket. What the peer had not yet
//     read when the connection broke is lost: a WebSocket has no receipts. Nothing is sent twice.
//   - Events come in the order the server sent them and are never dropped on this side. While the
//     channel is full (Config.EventBuffer) nothing more is read, and after some 20 s the server
//     gives the connection up because its pings go unanswered. So read Events at all times.
//   - After a reconnect the Conn asks the server which of its sessions are left. For one that is
//     gone, as after a restart of the server, a Closed with Lost set is delivered.
//   - With Config.V2 a Conn may moderate calls, and is told why something was refused and how many
//     are in its calls. Without it nothing of that is on the wire.
//   - A message of the server that makes no sense is dropped and counted (Conn.Stats), and costs
//     nothing else.
//
// Keys and tokens appear in no error and no log line.
package client
