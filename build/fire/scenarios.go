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
	backendAway,
	reconnectHerd,
	churn,
	addressChange,
	networkChange,
	publisherVanishes,
	badNetworks,
	feedbackStorm,
	mediaFlooder,
	junkFlood,
	spoofedPackets,
	unaskedPackets,
	fuzzing,
	loginFlood,
	caps,
	joinFlood,
	hostileTCP,
	terminate,
	restart,
	badConfigurations,
	certificateRotation,
	deadSTUN,
	soak,
	acrossTenants,
	limitsHold,
	nothingLeft,
	clockJumps,
}

// budgets are the seconds that a quick run of each may take on a quiet machine of two processors. All
// together they have to stay below 10 minutes, those of lengthy left out.
var budgets = map[string]int{
	"F1": 12, "F2": 12, "F3": 6, "F4": 10, "F5": 3, "F6": 12, "F7": 10, "F8": 15, "F9": 22, "F10": 18, "F11": 36, "F12": 18,
	"F13": 12, "F14": 15, "F15": 12, "F15b": 15, "F16": 36, "F17": 32, "F18": 10, "F19": 10, "F20": 32, "F23": 16, "F25": 25,
	"F27": 10, "F28": 36, "F29": 18, "F30": 15, "F31": 16, "F32": 8, "F33": 3, "F34": 7, "F42": 5, "F43": 24,
	"P8": 10, "P11": 20, "P19": 40, "P21": 30,
}

// lengthy are those that wait for the server's longest times. -quick leaves them out unless they are asked
// for with -run.
var lengthy = []string{"F16", "F28"}

// telling are those of -ci.
var telling = []string{"F1", "F9", "F10", "F11", "F20", "F23", "F31"}
