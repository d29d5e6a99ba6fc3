// Package field is the ground on which faults are injected: network namespaces that are routed
// through one in their middle, impaired links, broken links, address translation, small disks, disks
// that lose power, and control groups.
//
//	srv ─┐        ┌─ cli1 … cliN
//	be1 ─┼── rt ──┤
//	be2 ─┘        └─ atk
//
// Every namespace has a /30 of its own and a route through rt, so that all that passes between two of
// them passes the FORWARD chain of rt. There it is delayed, lost, doubled, reordered or cut: netem is
// not in every kernel, queues to user space are.
//
// Everything is named after the process that made it, so that Clean finds what a process left that did
// not live to clean up.
//
// It is for Linux and needs root, ip (iproute2), nft, conntrack, and iptables-legacy for impairments;
// Missing says what is not there.
package field
