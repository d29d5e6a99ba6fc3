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
	littleMemory,
	longPauses,
	stalledReader,
	webSocketDrops,
	reconnectHerd,
	churn,
	addressChange,
	networkChange,
	publisherVanishes,
	badNetworks,
	junkFlood,
	spoofedPackets,
	unaskedPackets,
	fuzzing,
	loginFlood,
	joinFlood,
	hostileTCP,
	terminate,
	restart,
	badConfigurations,
	deadSTUN,
	soak,
	acrossTenants,
	limitsHold,
}
