// Command powerloss shows that an acknowledged registration survives a power loss.
//
// Each round mounts a fresh ext4 image through a loop device and lets a child process register
// clients in a store there. At a random instant the child is stopped and the image is copied
// while it is still mounted: the copy holds what was really flushed to the disk, and nothing that
// only the page cache knew. The copy is then mounted, and the store in it has to hold every
// registration that was acknowledged before the stop.
//
// Beside the store the child writes the same ids to a file that it does not sync. Most of them
// have to be missing in the copy, else the method would prove nothing.
//
// It needs root, loop devices and mkfs.ext4; without them it says so and ends with status 0.
//
//	go run ./build/powerloss -rounds 20
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rtcd/service/store"
)

const (
	imageBytes = 64 << 20
	minFree    = 8 << 20
	storeName  = "data"
	unsynced   = "unsynced"
)

func main() {
	rounds := flag.Int("rounds", 20, "power losses to try")
	seed := flag.Uint64("seed", rand.Uint64(), "seed of the instants")
	child := flag.String("register", "", "register clients below this folder until killed (used by the program itself)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *child != "" {
		err = register(*child)
	} else {
		err = run(ctx, *rounds, *seed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "powerloss:", err)
		os.Exit(1)
	}
}

// errSkip says why nothing can be shown here.
var errSkip = errors.New("SKIPPED, NOTHING SHOWN")

func run(ctx context.Context, rounds int, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, 0))
	fmt.Println("seed", seed)
	var total tally
	for i := range rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		after := time.Duration(random.Int64N(int64(500 * time.Millisecond)))
		t, err := round(ctx, after)
		if errors.Is(err, errSkip) && i == 0 {
			fmt.Println("powerloss:", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		fmt.Printf("round %d: cut after %v, %d acknowledged, %d lost; of the unsynced file %d lost\n",
			i, after.Round(time.Millisecond), t.acked, t.lost, t.unsyncedLost)
		total.acked += t.acked
		total.lost += t.lost
		total.unsyncedLost += t.unsyncedLost
	}
	fmt.Printf("%d rounds: %d acknowledged, %d lost; of the unsynced file %d lost\n",
		rounds, total.acked, total.lost, total.unsyncedLost)
	switch {
	case total.lost > 0:
		return fmt.Errorf("%d acknowledged registrations were lost", total.lost)
	case total.acked == 0:
		return errors.New("nothing was acknowledged, so nothing was shown")
	case total.unsyncedLost == 0:
		return errors.New("the unsynced file lost nothing either: the copies are no power losses")
	}
	return nil
}

// A tally counts registrations.
type tally struct{ acked, lost, unsyncedLost int }

func round(ctx context.Context, after time.Duration) (t tally, err error) {
	if os.Getuid() != 0 {
		return t, fmt.Errorf("%w: it needs root", errSkip)
	}
	dir, err := os.MkdirTemp("", "powerloss-")
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image, copied := filepath.Join(dir, "image"), filepath.Join(dir, "copy")
	if err := makeImage(ctx, image); err != nil {
		return t, fmt.Errorf("%w: %w", errSkip, err)
	}
	mounted, err := mount(ctx, image, filepath.Join(dir, "before"))
	if err != nil {
		return t, fmt.Errorf("%w: %w", errSkip, err)
	}
	acked, err := cutOff(ctx, mounted, after, image, copied)
	if err := errors.Join(err, unmount(mounted)); err != nil {
		return t, err
	}
	recovered, err := mount(ctx, copied, filepath.Join(dir, "after"))
	if err != nil {
		return t, err
	}
	t, err = compare(recovered, acked)
	return t, errors.Join(err, unmount(recovered))
}

func makeImage(ctx context.Context, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(imageBytes), file.Close()); err != nil {
		return err
	}
	return command(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)
}

func mount(ctx context.Context, image, dir string) (string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, command(ctx, "mount", "-o", "loop", image, dir)
}

// unmount also runs when the program was interrupted.
func unmount(dir string) error {
	return command(context.Background(), "umount", dir)
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// cutOff lets a child register below dir, stops it, copies the image, kills the child, and
// returns the ids that it had acknowledged.
func cutOff(ctx context.Context, dir string, after time.Duration, image, copied string) ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-register", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	copying := make(chan error, 1)
	var acked []string
	started := false
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		if !started { // the first line says that the store is open
			started = true
			time.AfterFunc(after, func() { copying <- stopAndCopy(cmd.Process, image, copied) })
			continue
		}
		acked = append(acked, strings.TrimSuffix(line, "\n"))
	}
	if started {
		err = <-copying
	} else {
		err = errors.New("the child did not open the store")
	}
	_ = cmd.Wait() // killed
	return acked, err
}

func stopAndCopy(child *os.Process, image, copied string) error {
	err := child.Signal(syscall.SIGSTOP)
	if err == nil {
		err = copyFile(image, copied)
	}
	return errors.Join(err, child.Kill())
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// compare opens the store below dir and counts what it lacks of acked.
func compare(dir string, acked []string) (tally, error) {
	t := tally{acked: len(acked)}
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, storeName), MinFreeBytes: minFree}, nil)
	if err != nil {
		return t, err
	}
	for _, id := range acked {
		if client, err := s.Get(id); err != nil || string(client.Hash) != hashOf(id) {
			fmt.Printf("lost: %s (%v)\n", id, err)
			t.lost++
		}
	}
	held, err := os.ReadFile(filepath.Join(dir, unsynced))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return t, errors.Join(err, s.Close())
	}
	for _, id := range acked {
		if !strings.Contains(string(held), id+"\n") {
			t.unsyncedLost++
		}
	}
	return t, s.Close()
}

// register is the child: it writes an id to standard output when the store acknowledged it.
func register(dir string) error {
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, storeName), MinFreeBytes: minFree}, nil)
	if err != nil {
		return err
	}
	plain, err := os.Create(filepath.Join(dir, unsynced))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		id := fmt.Sprintf("client-%06d", i)
		if _, err := plain.WriteString(id + "\n"); err != nil {
			return err
		}
		client := store.Client{ID: id, Hash: []byte(hashOf(id)), Created: time.Now()}
		err := s.Insert(context.Background(), client)
		if errors.Is(err, store.ErrFull) {
			select {} // all there is was said; wait for the end
		}
		if err != nil {
			return err
		}
		fmt.Println(id)
	}
}

func hashOf(id string) string { return "hash of " + id }
