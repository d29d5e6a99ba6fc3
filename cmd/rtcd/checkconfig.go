package main

import (
	"encoding/json"
	"flag"
	"fmt"

	"rtcd/config"
	"rtcd/service"
)

const configUsage = `usage:
  rtcd config check [-ports [-json]]
Prints all faults and warnings of file and environment. The exit status is 0 only if there are none.
With -ports it also prints what the server would listen on, without starting it.
`

// config is "rtcd config ...".
func (c *cli) config(args []string) int {
	flags := flag.NewFlagSet("rtcd config", flag.ContinueOnError)
	ports := flags.Bool("ports", false, "print what the server would listen on")
	asJSON := flags.Bool("json", false, "print that as JSON")
	rest, status, ok := c.parse(flags, configUsage, args)
	switch {
	case !ok:
		return status
	case len(rest) != 1 || rest[0] != "check":
		return c.misuse(configUsage, "unknown command %q", append([]string{"config"}, rest...))
	}
	cfg, report, err := config.Load(c.path, c.environ)
	findings := c.stdout
	if *asJSON {
		findings = c.stderr
	}
	_, _ = fmt.Fprint(findings, report)
	fine := report.OK()
	if err == nil {
		if policyErr := service.CheckPolicy(cfg); policyErr != nil {
			fine = false
			_, _ = fmt.Fprintln(findings, "error:", policyErr)
		}
	}
	if fine {
		_, _ = fmt.Fprintln(findings, "configuration is fine")
	}
	if *ports && err == nil {
		if err := c.printPorts(cfg, *asJSON); err != nil {
			return c.end(err)
		}
	}
	if !fine {
		return statusFault
	}
	return statusOK
}

func (c *cli) printPorts(cfg config.Config, asJSON bool) error {
	table, err := service.Listeners(cfg)
	if err != nil {
		return fmt.Errorf("list listeners: %w", err)
	}
	if asJSON {
		return json.NewEncoder(c.stdout).Encode(table)
	}
	_, err = fmt.Fprint(c.stdout, table)
	return err
}
