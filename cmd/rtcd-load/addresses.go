package main

import (
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strings"
)

const localHelp = "local `addresses` of the media, with commas between, which people take in turn; empty: the one that\n" +
	"leads to the server, or a thousand of 127.0.0.0/8 if that is of them (Linux); all: each has each"

// loopbacks is how many addresses of 127.0.0.0/8 people take in turn.
const loopbacks = 1000

// checkAddresses checks the value of -local-ip.
func checkAddresses(list string) error {
	if list == "" || list == "all" {
		return nil
	}
	for text := range strings.SplitSeq(list, ",") {
		if net.ParseIP(text) == nil {
			return fmt.Errorf("-local-ip: %q is no address", text)
		}
	}
	return nil
}

// addresses returns the local address that endpoints find for their media, nil for all, and those that
// they use in turn instead. Servers limit what comes from one address before it has proven anything,
// so that people who join from a single one would wait for each other.
func (o *options) addresses() (local net.IP, sources []net.IP, err error) {
	if o.localIP == "all" {
		return nil, nil, nil
	}
	leads, err := leadsTo(o.client.URL)
	if err != nil || o.localIP == "" && (!leads.IsLoopback() || leads.To4() == nil || runtime.GOOS != "linux") {
		return leads, nil, err
	}
	if o.localIP == "" {
		for i := range loopbacks {
			sources = append(sources, net.IPv4(127, 0, byte(1+i/250), byte(1+i%250)))
		}
		return leads, sources, nil
	}
	for text := range strings.SplitSeq(o.localIP, ",") {
		sources = append(sources, net.ParseIP(text))
	}
	return sources[0], sources, nil
}

// leadsTo returns the local address that leads to a server.
func leadsTo(server string) (net.IP, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("parse server url: %w", err)
	}
	// A UDP socket that is connected has that address; nothing is sent.
	c, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), "9"))
	if err != nil {
		return nil, fmt.Errorf("find the address that leads to the server: %w", err)
	}
	defer func() { _ = c.Close() }()
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("find the address that leads to the server: got %v", c.LocalAddr())
	}
	return a.IP, nil
}
