// Package load is the steady load under which faults are injected: a real rtcd process on a field, real
// backends that speak to it through package client, and people made of pion in their calls, who check
// every packet.
//
// A Party is all of it. Mark begins a measurement and Measure ends it: between them every packet of
// every voice is owed to every other person of the call, and what did not come and was not dropped by
// an impairer on the way was lost by the server.
package load
