package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"rtcd/config"
	"rtcd/service/doctor"
)

const doctorUsage = `usage:
  rtcd doctor [-json] [-online] [-ntp SERVER]
  rtcd doctor -probe [-admin URL] [-admin-key-file PATH]
Looks at this machine and the configuration, and says what is wrong, why it matters and what to do.
Nothing is changed; a server that runs is left alone. The exit status is 0 if there is nothing to be
done, also with findings that are information only, 1 with an error or a warning, 2 for a wrong
command line. With -online it also asks others: the NTP, STUN and syslog servers.
With -probe it asks a running server for a link, good once, to a page that tells an end user which of
UDP and TCP works from where he sits.
`

// defaultNTP is asked for the time with -online.
const defaultNTP = "pool.ntp.org"

// doctorTime bounds a whole look.
const doctorTime = 90 * time.Second

// doctor is "rtcd doctor".
func (c *cli) doctor(args []string) int {
	flags := flag.NewFlagSet("rtcd doctor", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print a JSON list of findings")
	online := flags.Bool("online", false, "also ask others: NTP, STUN and syslog servers")
	ntp := flags.String("ntp", defaultNTP, "NTP `server` to ask with -online; empty for none")
	probe := flags.Bool("probe", false, "ask a running server for a link to its probe page, and do nothing else")
	table := flags.Bool("table", false, "print the table of all findings for the manual")
	var admin adminFlags
	admin.register(flags)
	rest, status, ok := c.parse(flags, doctorUsage, args)
	switch {
	case !ok:
		return status
	case len(rest) > 0:
		return c.misuse(doctorUsage, "unexpected argument %q", rest)
	case *table:
		_, _ = fmt.Fprint(c.stdout, doctor.Table())
		return statusOK
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	if *probe {
		return c.end(c.probeLink(ctx, admin, *asJSON))
	}
	cfg, report, _ := config.Load(c.path, c.environ) // what is wrong with it stands in the report
	found := doctor.Run(ctx, doctor.Options{Config: cfg, Report: report, Online: *online, NTP: *ntp})
	if *asJSON {
		if found == nil {
			found = []doctor.Finding{}
		}
		encoder := json.NewEncoder(c.stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(found); err != nil {
			return c.end(fmt.Errorf("print findings: %w", err))
		}
	} else {
		_, _ = fmt.Fprint(c.stdout, doctor.Text(found))
		if doctor.Healthy(found) {
			_, _ = fmt.Fprintln(c.stdout, "nothing is wrong")
		}
	}
	if !doctor.Healthy(found) {
		return statusFault
	}
	return statusOK
}

// probeLink asks the running server for a link to its probe page.
func (c *cli) probeLink(ctx context.Context, admin adminFlags, asJSON bool) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	if admin.url == "" {
		if admin.url, err = adminURL(cfg.API.Admin); err != nil {
			return err
		}
	}
	client, err := admin.connect(cfg, c.stderr)
	if err != nil {
		return err
	}
	var link struct {
		Link      string    `json:"link"`
		ExpiresAt time.Time `json:"expiresAt"`
	}
	if err := client.call(ctx, http.MethodPost, "/admin/probes", nil, &link); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.stdout).Encode(link)
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n(good once, until %s)\n", link.Link, link.ExpiresAt.Format(time.RFC3339))
	return err
}

// adminURL is where the admin listener of a configuration is, for who is on the same machine.
func adminURL(a config.Admin) (string, error) {
	host, port, err := net.SplitHostPort(a.ListenAddress)
	if err != nil {
		return "", fmt.Errorf("api.admin.listen_address = %q: no admin listener to ask; -admin names another", a.ListenAddress)
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if a.TLS.Enable {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}
