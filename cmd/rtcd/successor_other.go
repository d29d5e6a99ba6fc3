//go:build !unix

package main

import "log/slog"

func watchHangup(*slog.Logger) (stop func()) { return func() {} }

func notifyReady(*slog.Logger) {}
