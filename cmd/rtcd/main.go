// Command rtcd is the media server. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

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
  rtcd [-config PATH]                        serve
  rtcd [-config PATH] config check [-ports]  check the configuration and say all that is wrong
  rtcd [-config PATH] client COMMAND ...     add, list, roles, rotate, revoke, rm: backends
  rtcd [-config PATH] store COMMAND ...      backup, restore, verify: the data store
  rtcd [-config PATH] drain [-undo] ...      take a running server out of service, and back
  rtcd [-config PATH] audit COMMAND ...      verify, tail: the record of who did what
  rtcd [-config PATH] dev-certs DIR          make certificates for development
  rtcd [-config PATH] doctor [-online]       say what is wrong with this machine and the configuration
  rtcd [-config PATH] healthcheck [-ready]   ask the server on this machine whether it is well
  rtcd -version                              print the version
Commands print their usage with -h.
`

// Exit statuses.
const (
	statusOK    = 0
	statusFault = 1 // what was asked for was not done, or a check found something
	statusUsage = 2 // the command line is wrong
)

// A cli is one run of the program with everything it touches handed in.
type cli struct {
	path           string // of the configuration
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// commands are what a command line may begin with. Each returns the exit status.
var commands = map[string]func(c *cli, args []string) int{
	"config":      (*cli).config,
	"client":      (*cli).client,
	"store":       (*cli).store,
	"drain":       (*cli).drain,
	"audit":       (*cli).audit,
	"dev-certs":   (*cli).devCerts,
	"doctor":      (*cli).doctor,
	"healthcheck": (*cli).healthcheck,
}

// run is main with everything but standard input handed in. It returns the exit status.
func run(args, environ []string, stdout, stderr io.Writer) int {
	c := &cli{environ: environ, stdin: os.Stdin, stdout: stdout, stderr: stderr}
	return c.run(args)
}

func (c *cli) run(args []string) int {
	flags := flag.NewFlagSet("rtcd", flag.ContinueOnError)
	flags.SetOutput(c.stderr)
	flags.StringVar(&c.path, "config", config.DefaultPath, "path of the configuration `file`")
	show := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		_, _ = fmt.Fprint(c.stderr, usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return statusOK
	case err != nil:
		return statusUsage
	}
	if *show {
		_, _ = fmt.Fprintln(c.stdout, version)
		return statusOK
	}
	if rest := flags.Args(); len(rest) > 0 {
		command, ok := commands[rest[0]]
		if !ok {
			return c.misuse(usage, "unknown command %q", rest)
		}
		return command(c, rest[1:])
	}
	cfg, report, err := config.Load(c.path, c.environ)
	if err == nil {
		err = serve(cfg, report, c.stdout)
	}
	return c.end(err)
}

// end reports an error, if there is one, and returns the exit status.
func (c *cli) end(err error) int {
	if err == nil {
		return statusOK
	}
	_, _ = fmt.Fprintf(c.stderr, "rtcd: %v\n", err)
	return statusFault
}

// misuse says what is wrong with the command line and how it should be.
func (c *cli) misuse(usage, format string, args ...any) int {
	_, _ = fmt.Fprintf(c.stderr, "rtcd: "+format+"\n%s", append(args, usage)...)
	return statusUsage
}

// parse reads the flags of a command, which may stand before, between and after its arguments. If
// there is nothing more to do, it returns false and the exit status.
func (c *cli) parse(flags *flag.FlagSet, usage string, args []string) (rest []string, status int, ok bool) {
	flags.SetOutput(c.stderr)
	flags.StringVar(&c.path, "config", c.path, "path of the configuration `file`")
	flags.Usage = func() {
		_, _ = fmt.Fprint(c.stderr, usage)
		flags.PrintDefaults()
	}
	for {
		switch err := flags.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			return nil, statusOK, false
		case err != nil:
			return nil, statusUsage, false
		}
		if flags.NArg() == 0 {
			return rest, 0, true
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
		if given := len(args) > 0 && args[0] == "--"; given {
			return append(rest, args[1:]...), 0, true
		}
	}
}

// load reads the configuration for a command that works with it.
func (c *cli) load() (config.Config, error) {
	cfg, _, err := config.Load(c.path, c.environ)
	return cfg, err
}

// serve runs the server until a signal has ended it.
func serve(cfg config.Config, report *config.Report, stdout io.Writer) error {
	l := cfg.Logger
	log, out, err := logging.New(logging.Config{
		EnableConsole: l.EnableConsole, ConsoleJSON: l.ConsoleJSON, ConsoleLevel: l.ConsoleLevel,
		EnableColor: l.EnableColor, EnableFile: l.EnableFile, FileJSON: l.FileJSON,
		FileLevel: l.FileLevel, FileLocation: l.FileLocation, Console: stdout,
		RedactAddresses: l.RedactAddresses, OwnAddresses: ownAddresses(),
	})
	if err != nil {
		return fmt.Errorf("set up logging: %w", err)
	}
	defer func() { _ = out.Close() }() // whatever hangs, the process ends
	if report.FileMissing {
		log.Info("no configuration file, using defaults and environment", "path", report.Path)
	}
	for _, w := range append(report.Notes, report.Warnings...) {
		log.Warn("configuration: " + w)
	}

	ctx, drain := context.WithCancel(context.Background())
	halted, halt := context.WithCancel(context.Background())
	defer halt()
	defer watchSignals(log, drain, halt)()

	srv, err := service.New(ctx, cfg, service.Options{
		Build:         api.Build{Version: version, Hash: hash, Date: date},
		Log:           log,
		LogTargets:    out.Targets(),
		AdminOptional: report.Source("api.admin.listen_address") == "default",
	})
	if err != nil {
		log.Error("start failed", "err", err)
		return err
	}
	notifyReady(log)
	if cfg.Upgrade.Socket != "" || managed() {
		defer watchHangup(cfg.Upgrade.Socket, log)()
	}
	defer context.AfterFunc(halted, srv.Halt)()
	if err = srv.Run(ctx); halted.Err() != nil {
		return errors.Join(errHalted, err)
	}
	return err
}

// ownAddresses are those of this machine that can be had.
func ownAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then they are redacted as well
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out
}
