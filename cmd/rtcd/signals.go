package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// errHalted is the error of a server that was not let drain.
var errHalted = errors.New("stopped at once by a second signal; calls were cut")

// haltLimit is how long the server may take to stop at once. It takes less, unless it hangs.
const haltLimit = 2 * time.Second

// watchSignals calls drain for the first SIGINT or SIGTERM and halt for the second. A third ends the
// process, as does a server that does not obey the second. The caller calls stop in the end.
func watchSignals(log *slog.Logger, drain, halt context.CancelFunc) (stop func()) {
	signal.Ignore(syscall.SIGPIPE) // who reads the log may go away; calls go on
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var limit <-chan time.Time
		for count := 1; ; count++ {
			select {
			case s := <-signals:
				switch count {
				case 1:
					log.Info("signal received, draining; a second one stops at once", "signal", s.String())
					drain()
				case 2:
					log.Warn("second signal, stopping at once", "signal", s.String())
					halt()
					limit = time.After(haltLimit)
				default:
					os.Exit(statusFault)
				}
			case <-limit:
				os.Exit(statusFault)
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}
