// Command rtcd is the media server. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"rtcd/config"
	"rtcd/service"
	"rtcd/service/api"
	"rtcd/service/logging"
)

// Set by the linker: -ldflags "-X main.version=v1.3.1 -X main.hash=… -X main.date=…".
var (
	version = api.DefaultVersion
	hash    = ""
	date    = ""
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

const usage = `usage:
  rtcd [-config PATH]                serve
  rtcd [-config PATH] config check   check the configuration and say all that is wrong
  rtcd -version                      print the version
`

// run is main with everything it touches handed in. It returns the exit status: 0, 1 for a fault,
// 2 for a wrong command line.
func run(args, environ []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("rtcd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "config/config.toml", "path of the configuration `file`")
	show := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if *show {
		_, _ = fmt.Fprintln(stdout, version)
		return 0
	}
	rest := flags.Args()
	check := len(rest) == 2 && rest[0] == "config" && rest[1] == "check"
	if len(rest) > 0 && !check {
		_, _ = fmt.Fprintf(stderr, "rtcd: unknown command %q\n%s", rest, usage)
		return 2
	}
	cfg, report, err := config.Load(*path, environ)
	if check {
		_, _ = fmt.Fprint(stdout, report)
		if !report.OK() {
			return 1
		}
		_, _ = fmt.Fprintln(stdout, "configuration is fine")
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "rtcd: %v\n", err)
		return 1
	}
	if err := serve(cfg, report, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "rtcd: %v\n", err)
		return 1
	}
	return 0
}

// serve runs the server until a signal has ended it.
func serve(cfg config.Config, report *config.Report, stdout io.Writer) error {
	l := cfg.Logger
	log, closer, err := logging.New(logging.Config{
		EnableConsole: l.EnableConsole, ConsoleJSON: l.ConsoleJSON, ConsoleLevel: l.ConsoleLevel,
		EnableColor: l.EnableColor, EnableFile: l.EnableFile, FileJSON: l.FileJSON,
		FileLevel: l.FileLevel, FileLocation: l.FileLocation, Console: stdout,
	})
	if err != nil {
		return fmt.Errorf("set up logging: %w", err)
	}
	defer func() { _ = closer.Close() }()
	if report.FileMissing {
		log.Info("no configuration file, using defaults and environment", "path", report.Path)
	}
	for _, w := range report.Warnings {
		log.Warn("configuration: " + w)
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case s := <-signals:
			log.Info("signal received, draining; a second one stops at once", "signal", s.String())
			stop()
		case <-done:
			return
		}
		select {
		case s := <-signals:
			log.Warn("second signal, stopping at once", "signal", s.String())
			_ = closer.Close()
			os.Exit(1)
		case <-done:
		}
	}()

	srv, err := service.New(ctx, cfg, service.Options{
		Build:         api.Build{Version: version, Hash: hash, Date: date},
		Log:           log,
		AdminOptional: report.Source("api.admin.listen_address") == "default",
	})
	if err != nil {
		log.Error("start failed", "err", err)
		return err
	}
	return srv.Run(ctx)
}
