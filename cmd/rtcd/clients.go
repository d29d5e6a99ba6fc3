package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"rtcd/service"
	"rtcd/service/api"
	"rtcd/service/store"
)

const clientUsage = `usage:
  rtcd client add ID [-roles a,b] [-key-file FILE | -generate]
  rtcd client list [-json]
  rtcd client roles ID [ROLE,ROLE... | -default]
  rtcd client rotate ID [-grace 60s] [-key-file FILE | -generate]
  rtcd client revoke ID
  rtcd client rm ID
Manages the registered backends: in the data store itself while no server runs, or with -admin URL
through the admin listener of a running one. Keys come from the first line of standard input or from
a file, or are generated and printed. "roles ID" without roles takes all away.
`

const (
	maxKeyInput   = 4 << 10 // bytes
	listPage      = 100
	clientTimeout = time.Minute // beside the grace of a rotation
)

// A directory is where backends are registered: the data store, or a running server.
type directory interface {
	Add(ctx context.Context, id, key string, roles []string) error
	List(ctx context.Context, after string, limit int) ([]api.Tenant, error)
	SetRoles(ctx context.Context, id string, roles []string) error
	Rotate(ctx context.Context, id, key string, grace time.Duration) error
	Revoke(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	Close() error
}

// clientFlags are those of "rtcd client ...".
type clientFlags struct {
	admin     adminFlags
	roles     string
	keyFile   string
	generate  bool
	byDefault bool
	asJSON    bool
	grace     time.Duration
	given     map[string]bool
}

// allowed says which flags, beside those for all, belong to which command.
var allowed = map[string][]string{
	"add":    {"roles", "key-file", "generate"},
	"list":   {},
	"roles":  {"default"},
	"rotate": {"grace", "key-file", "generate"},
	"revoke": {},
	"rm":     {},
}

// client is "rtcd client ...".
func (c *cli) client(args []string) int {
	flags := flag.NewFlagSet("rtcd client", flag.ContinueOnError)
	f := clientFlags{given: map[string]bool{}}
	f.admin.register(flags)
	flags.StringVar(&f.roles, "roles", "", "comma `list` of roles of a new backend; without it the default role")
	flags.StringVar(&f.keyFile, "key-file", "", "`file` with the key")
	flags.BoolVar(&f.generate, "generate", false, "make a random key and print it")
	flags.BoolVar(&f.byDefault, "default", false, "give back the default role")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.DurationVar(&f.grace, "grace", 0, "how long what the former key has opened stays; only with -admin")
	rest, status, ok := c.parse(flags, clientUsage, args)
	if !ok {
		return status
	}
	flags.Visit(func(g *flag.Flag) { f.given[g.Name] = true })
	if wrong := f.check(rest); wrong != "" {
		return c.misuse(clientUsage, "%s", wrong)
	}
	return c.end(c.manage(rest, &f))
}

// check says what is wrong with the command line, or "".
func (f *clientFlags) check(rest []string) string {
	if len(rest) == 0 {
		return "client: no command"
	}
	own, ok := allowed[rest[0]]
	if !ok {
		return fmt.Sprintf("unknown command %q", append([]string{"client"}, rest...))
	}
	for _, name := range []string{"roles", "key-file", "generate", "default", "grace"} {
		if f.given[name] && !slices.Contains(own, name) {
			return fmt.Sprintf("client %s: no flag -%s", rest[0], name)
		}
	}
	want := 2
	switch {
	case rest[0] == "list":
		want = 1
	case rest[0] == "roles" && !f.byDefault && len(rest) == 3:
		want = 3
	}
	switch {
	case len(rest) != want:
		return fmt.Sprintf("client %s: %d arguments, want %d", rest[0], len(rest)-1, want-1)
	case f.generate && f.keyFile != "":
		return "client " + rest[0] + ": -generate and -key-file exclude each other"
	case f.grace < 0:
		return "client rotate: -grace must not be negative"
	case f.grace > 0 && f.admin.url == "":
		return "client rotate: -grace is for a running server: use -admin"
	}
	return ""
}

// manage carries the command out.
func (c *cli) manage(rest []string, f *clientFlags) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout+f.grace)
	defer cancel()
	key := ""
	if rest[0] == "add" || rest[0] == "rotate" {
		if key, err = c.key(f); err != nil {
			return err
		}
	}
	dir, err := c.directory(f, rest[0] == "add")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	switch rest[0] {
	case "list":
		return c.list(ctx, dir, f.asJSON)
	case "add":
		err = dir.Add(ctx, rest[1], key, roleList(f.roles, !f.given["roles"]))
	case "roles":
		text := ""
		if len(rest) == 3 {
			text = rest[2]
		}
		err = dir.SetRoles(ctx, rest[1], roleList(text, f.byDefault))
	case "rotate":
		err = dir.Rotate(ctx, rest[1], key, f.grace)
	case "revoke":
		err = dir.Revoke(ctx, rest[1])
	case "rm":
		err = dir.Remove(ctx, rest[1])
	}
	if err != nil {
		return fmt.Errorf("client %s %s: %w", rest[0], shownID(rest[1]), err)
	}
	return c.done(rest[1], key, f)
}

// done prints what was done, as far as that is not known already.
func (c *cli) done(id, key string, f *clientFlags) error {
	if !f.generate {
		key = ""
	}
	var err error
	switch {
	case f.asJSON:
		err = json.NewEncoder(c.stdout).Encode(struct {
			ClientID string `json:"clientID"`
			AuthKey  string `json:"authKey,omitempty"`
		}{id, key})
	case f.generate:
		_, err = fmt.Fprintln(c.stdout, key)
	}
	return err
}

// roleList returns the roles of a comma list; nil stands for the default.
func roleList(text string, byDefault bool) []string {
	if byDefault {
		return nil
	}
	roles := []string{}
	for role := range strings.SplitSeq(text, ",") {
		if role = strings.TrimSpace(role); role != "" {
			roles = append(roles, role)
		}
	}
	return roles
}

// key returns the key of a backend. It never comes from the command line, which others can read.
func (c *cli) key(f *clientFlags) (string, error) {
	if f.generate {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw) // never fails
		return base64.RawURLEncoding.EncodeToString(raw), nil
	}
	if f.keyFile != "" {
		return readKeyFile(f.keyFile)
	}
	if in, ok := c.stdin.(*os.File); ok {
		if info, err := in.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			_, _ = fmt.Fprint(c.stderr, "key (it shows; better use -generate or -key-file): ")
		}
	}
	return firstLine(c.stdin, "standard input")
}

func readKeyFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	defer func() { _ = file.Close() }()
	return firstLine(file, path)
}

// firstLine returns the first line of what holds a key.
func firstLine(r io.Reader, name string) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxKeyInput+1)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read key from %s: %w", name, err)
	}
	switch line = strings.TrimRight(line, "\r\n"); {
	case line == "":
		return "", fmt.Errorf("read key from %s: it is empty", name)
	case len(line) > maxKeyInput || !utf8.ValidString(line):
		return "", fmt.Errorf("read key from %s: it is no line of text", name)
	}
	return line, nil
}

// directory opens the data store, or a way to a running server. A store that is not there is made only
// if create is set.
func (c *cli) directory(f *clientFlags, create bool) (directory, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	if f.admin.url != "" {
		return f.admin.connect(cfg, c.stderr)
	}
	if !create {
		if _, err := os.Stat(cfg.Store.DataSource); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	accounts, err := service.OpenAccounts(cfg)
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("%w: a server runs on this store; use -admin URL to go through it", err)
	}
	return accounts, err
}

func (c *cli) list(ctx context.Context, dir directory, asJSON bool) error {
	all := []api.Tenant{}
	for after := ""; ; {
		page, err := dir.List(ctx, after, listPage)
		if err != nil {
			return fmt.Errorf("client list: %w", err)
		}
		all = append(all, page...)
		if len(page) < listPage {
			break
		}
		after = page[len(page)-1].ClientID
	}
	if asJSON {
		return json.NewEncoder(c.stdout).Encode(struct {
			Clients []api.Tenant `json:"clients"`
		}{all})
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CLIENT\tROLES\tEPOCH\tCREATED\tKEY")
	for _, t := range all {
		created, key := "-", "valid"
		if !t.Created.IsZero() {
			created = t.Created.UTC().Format(time.RFC3339)
		}
		if t.Revoked {
			key = "revoked"
		}
		roles := strings.Join(t.Roles, ",")
		if roles == "" {
			roles = "-"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", shownID(t.ClientID), roles, t.Epoch, created, key)
	}
	return w.Flush()
}

// shownID returns an id as it can be printed: ids may hold anything.
func shownID(id string) string {
	if strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Sprintf("%q", id)
	}
	return id
}
