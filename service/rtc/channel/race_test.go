//go:build race

package channel_test

// raceEnabled: a sync.Pool then forgets at random, so that what is kept cannot be counted on.
const raceEnabled = true
