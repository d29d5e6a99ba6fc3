//go:build linux

package main

// scenarios are all faults, in the order they are run.
var scenarios = []scenario{
	killDuringRegistrations,
	diskFull,
	storeUnusable,
	filesExhausted,
	longPauses,
	stalledReader,
	webSocketDrops,
	reconnectHerd,
	addressChange,
	publisherVanishes,
	junkFlood,
}
