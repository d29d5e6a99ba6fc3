package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"rtcd/service/store"
)

const storeUsage = `usage:
  rtcd store backup FILE [-admin URL]   write all that is stored to a new file
  rtcd store verify FILE                say whether a backup is whole
  rtcd store restore FILE [-force]      fill the data store, which has to be empty
A backup is as confidential as the store. While a server runs, it is made through its admin listener.
A backup is verified before anything is restored; -force replaces what is in the store.
`

// storeFlags are those of "rtcd store ...".
type storeFlags struct {
	admin  adminFlags
	force  bool
	asJSON bool
}

// store is "rtcd store ...".
func (c *cli) store(args []string) int {
	flags := flag.NewFlagSet("rtcd store", flag.ContinueOnError)
	var f storeFlags
	f.admin.register(flags)
	flags.BoolVar(&f.force, "force", false, "restore over a store that is not empty")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	rest, status, ok := c.parse(flags, storeUsage, args)
	if !ok {
		return status
	}
	var run func(context.Context, string, *storeFlags) (store.BackupInfo, error)
	switch {
	case len(rest) == 0:
		return c.misuse(storeUsage, "store: no command")
	case rest[0] == "backup":
		run = c.backup
	case rest[0] == "verify":
		run = c.verify
	case rest[0] == "restore":
		run = c.restore
	default:
		return c.misuse(storeUsage, "unknown command %q", append([]string{"store"}, rest...))
	}
	switch {
	case len(rest) != 2:
		return c.misuse(storeUsage, "store %s: %d arguments, want a file", rest[0], len(rest)-1)
	case f.force && rest[0] != "restore", f.admin.url != "" && rest[0] != "backup":
		return c.misuse(storeUsage, "store %s: -force belongs to restore, -admin to backup", rest[0])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	info, err := run(ctx, rest[1], &f)
	if err != nil {
		// Several things wrong with one file are one line.
		return c.end(fmt.Errorf("store %s: %s", rest[0], strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return c.end(c.tell(info, f.asJSON))
}

func (c *cli) tell(info store.BackupInfo, asJSON bool) error {
	sum := hex.EncodeToString(info.SHA256[:])
	if asJSON {
		return json.NewEncoder(c.stdout).Encode(struct {
			Clients int    `json:"clients"`
			CallIDs int    `json:"callIDs"`
			Bytes   int64  `json:"bytes"`
			SHA256  string `json:"sha256"`
		}{info.Clients, info.CallIDs, info.Bytes, sum})
	}
	_, err := fmt.Fprintf(c.stdout, "%d clients, %d used call ids, %d bytes, SHA-256 %s\n", info.Clients, info.CallIDs, info.Bytes, sum)
	return err
}

func (c *cli) backup(ctx context.Context, path string, f *storeFlags) (store.BackupInfo, error) {
	cfg, err := c.load()
	if err != nil {
		return store.BackupInfo{}, err
	}
	if f.admin.url != "" {
		admin, err := f.admin.connect(cfg, c.stderr)
		if err != nil {
			return store.BackupInfo{}, err
		}
		return admin.backup(ctx, path)
	}
	if _, err := os.Stat(cfg.Store.DataSource); err != nil {
		return store.BackupInfo{}, err // opening would make one
	}
	st, err := store.Open(store.Config{Dir: cfg.Store.DataSource}, nil)
	if err != nil {
		if errors.Is(err, store.ErrLocked) {
			err = fmt.Errorf("%w: a server runs on this store; use -admin URL to go through it", err)
		}
		return store.BackupInfo{}, err
	}
	info, err := st.BackupFile(ctx, path)
	return info, errors.Join(err, st.Close())
}

func (c *cli) verify(_ context.Context, path string, _ *storeFlags) (store.BackupInfo, error) {
	return verifyFile(path)
}

func verifyFile(path string) (store.BackupInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return store.BackupInfo{}, err
	}
	defer func() { _ = file.Close() }()
	return store.VerifyBackup(file)
}

func (c *cli) restore(ctx context.Context, path string, f *storeFlags) (store.BackupInfo, error) {
	cfg, err := c.load()
	if err != nil {
		return store.BackupInfo{}, err
	}
	file, err := os.Open(path)
	if err != nil {
		return store.BackupInfo{}, err
	}
	defer func() { _ = file.Close() }()
	info, err := store.Restore(ctx, file, cfg.Store.DataSource, f.force)
	if errors.Is(err, store.ErrNotEmpty) {
		err = fmt.Errorf("%w; -force replaces what is there", err)
	}
	return info, err
}

// backup writes the backup of a running server to a new file. It is there only once it is whole.
func (a *adminClient) backup(ctx context.Context, path string) (info store.BackupInfo, err error) {
	if _, err := os.Lstat(path); err == nil {
		return info, fmt.Errorf("%s: %w", path, os.ErrExist)
	}
	resp, err := a.send(ctx, http.MethodPost, "/admin/store/backup", nil)
	if err != nil {
		return info, err
	}
	defer func() { _ = resp.Body.Close() }()
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*") // mode 0600
	if err != nil {
		return info, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = io.Copy(file, resp.Body)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return info, fmt.Errorf("receive backup: %w", err)
	}
	if info, err = verifyFile(file.Name()); err != nil {
		return info, fmt.Errorf("receive backup: %w", err)
	}
	return info, os.Rename(file.Name(), path)
}
