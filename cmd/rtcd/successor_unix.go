//go:build unix

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// errNoSuccession says what a process lacks to be taken over.
var errNoSuccession = errors.New("upgrade.socket is not set")

// watchHangup starts a successor of this process at each SIGHUP: the program that stands at its path
// now, with the same arguments and environment. Without a socket to take over at, a SIGHUP does
// nothing. The caller calls stop in the end.
func watchHangup(socket string, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range hangups {
			err := errNoSuccession
			if socket != "" {
				err = startSuccessor(log)
			}
			if err != nil {
				log.Error("upgrade: no successor could be started", "err", err)
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-ended
	}
}

// startSuccessor starts a process that asks this one to hand over, and outlives it.
func startSuccessor(log *slog.Logger) error {
	path, err := os.Executable() // as it was at the start: what stands there now is run
	if err != nil {
		return err
	}
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	log.Info("upgrade: successor started", "path", path, "pid", cmd.Process.Pid)
	go func() { // as long as this process lives, it has to be waited for
		if err := cmd.Wait(); err != nil {
			log.Error("upgrade: the successor has ended", "pid", cmd.Process.Pid, "err", err)
		}
	}()
	return nil
}

// managed reports whether there is a service manager that wants to be told.
func managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// notifyReady tells the service manager, if one wants to know, that this process serves, in the place
// of one before it maybe; see sd_notify(3).
func notifyReady(log *slog.Logger) {
	if !managed() {
		return
	}
	name := os.Getenv("NOTIFY_SOCKET")
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = fmt.Fprintf(c, "READY=1\nMAINPID=%d\n", os.Getpid())
		_ = c.Close()
	}
	if err != nil {
		log.Warn("service manager was not told", "err", err)
	}
}
