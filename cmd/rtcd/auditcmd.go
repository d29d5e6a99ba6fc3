package main

// audit is "rtcd audit ...".
func (c *cli) audit(args []string) int {
	cfg, err := c.load()
	if err != nil {
		return c.end(err)
	}
	return auditCommand(cfg, args, c.stdout, c.stderr)
}
