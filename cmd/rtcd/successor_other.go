//go:build !unix

package main

import "log/slog"

func watchHangup(string, *slog.Logger) (stop func()) { return func() {} }

func managed() bool { return false }

func notifyReady(*slog.Logger) {}
