package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rtcd/config"
	"rtcd/service/audit"
)

const auditUsage = `usage:
  rtcd audit verify [-dir DIR] [-anchor SEQ:HASH]   prove that the audit log is whole, or name its first fault
  rtcd audit tail [-dir DIR] [-n N] [-f] [-json] [-client ID] [-type TYPE] [-outcome N]
                                                    print its last events, and with -f those to come
`

// tailEvery is how often tail -f looks.
const tailEvery = 300 * time.Millisecond

// auditCommand runs "rtcd audit": args are those behind that word. It returns the exit status: 0, 1 for a
// fault in the log or in reading it, 2 for a wrong command line.
func auditCommand(cfg config.Config, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return runAudit(ctx, cfg.Audit.Dir, args, stdout, stderr)
}

// runAudit is auditCommand with what ends it handed in.
func runAudit(ctx context.Context, dir string, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		_, _ = fmt.Fprint(stderr, auditUsage)
		return 2
	}
	flags := flag.NewFlagSet("audit "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, auditUsage)
		flags.PrintDefaults()
	}
	flags.StringVar(&dir, "dir", dir, "`folder` of the audit log")
	var command func() error
	switch args[0] {
	case "verify":
		want := flags.String("anchor", "", "a head noted earlier, as `SEQ:HASH`; the log must still hold it")
		command = func() error { return auditVerify(ctx, dir, *want, stdout) }
	case "tail":
		var t auditTail
		flags.IntVar(&t.n, "n", 10, "how many events")
		flags.BoolVar(&t.follow, "f", false, "go on with those to come")
		flags.BoolVar(&t.json, "json", false, "print them as JSON, one in a line")
		flags.StringVar(&t.filter.Client, "client", "", "only of this client `id`")
		flags.StringVar(&t.filter.Type, "type", "", "only of this `type`")
		flags.Func("outcome", "only with this `outcome`: 0, 4, 8 or 12", t.setOutcome)
		command = func() error { return t.run(ctx, dir, stdout) }
	default:
		_, _ = fmt.Fprintf(stderr, "rtcd: unknown command \"audit %.40s\"\n%s", args[0], auditUsage)
		return 2
	}
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		_, _ = fmt.Fprintf(stderr, "rtcd: audit %s: what is %q?\n%s", args[0], flags.Arg(0), auditUsage)
		return 2
	}
	if err := command(); err != nil {
		_, _ = fmt.Fprintf(stderr, "rtcd: %v\n", err)
		return 1
	}
	return 0
}

func auditVerify(ctx context.Context, dir, want string, stdout io.Writer) error {
	report, err := audit.VerifyAnchor(ctx, dir, want)
	if err != nil {
		return err
	}
	if report.Fault != nil {
		return fmt.Errorf("audit log %s: %s", dir, report)
	}
	_, err = fmt.Fprintf(stdout, "audit log %s: %s\n", dir, report)
	return err
}

// auditTail is what "rtcd audit tail" was asked for.
type auditTail struct {
	n            int
	follow, json bool
	filter       audit.Filter
}

func (t *auditTail) setOutcome(text string) error {
	for _, o := range []audit.Outcome{audit.Success, audit.MinorFailure, audit.SeriousFailure, audit.MajorFailure} {
		if text == fmt.Sprint(int(o)) {
			t.filter.Outcome = &o
			return nil
		}
	}
	return errors.New("it is none of 0, 4, 8, 12")
}

func (t *auditTail) run(ctx context.Context, dir string, stdout io.Writer) error {
	print := func(e audit.Event) error {
		text := []byte(e.Text())
		if t.json {
			var err error
			if text, err = json.Marshal(e); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(stdout, "%s\n", text)
		return err
	}
	r := audit.NewReader(dir)
	page, err := r.Last(ctx, t.filter, t.n)
	if err != nil {
		return err
	}
	for _, e := range page.Events {
		if err := print(e); err != nil {
			return err
		}
	}
	if !t.follow {
		return nil
	}
	return r.Follow(ctx, t.filter, page.Next, tailEvery, print)
}
