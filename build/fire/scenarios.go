//go:build linux

package main

// scenarios are all faults, in the order they are run.
var scenarios = []scenario{
	killDuringRegistrations,
	powerLoss,
	tornStore,
	diskFull,
	storeUnusable,
	filesExhausted,
	longPauses,
	stalledReader,
	webSocketDrops,
	reconnectHerd,
	churn,
	addressChange,
	publisherVanishes,
	junkFlood,
	spoofedPackets,
	fuzzing,
	terminate,
	badConfigurations,
	acrossTenants,
	limitsHold,
}
