//go:build linux

package field

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Tmpfs mounts a file system in memory, of so many bytes, and returns where.
func (f *Field) Tmpfs(name string, size int64) (string, error) {
	return f.mount(name, "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs")
}

// Ext4 makes an image of so many bytes, mounts it through a loop device and returns where, and the
// image.
func (f *Field) Ext4(name string, size int64) (dir, image string, err error) {
	image = filepath.Join(f.Dir, name+".image")
	file, err := os.Create(image)
	if err != nil {
		return "", "", fmt.Errorf("make an image: %w", err)
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return "", "", fmt.Errorf("make an image: %w", err)
	}
	if err := run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return "", "", err
	}
	dir, err = f.Loop(name, image)
	return dir, image, err
}

// Loop mounts an image and returns where.
func (f *Field) Loop(name, image string) (string, error) { return f.mount(name, "-o", "loop", image) }

// LosePower copies an image while it is mounted: the copy has what was flushed to the disk, and
// nothing that only the page cache knew.
func (f *Field) LosePower(image, copied string) error {
	source, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("copy an image: %w", err)
	}
	defer func() { _ = source.Close() }()
	target, err := os.Create(copied)
	if err != nil {
		return fmt.Errorf("copy an image: %w", err)
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

func (f *Field) mount(name string, args ...string) (string, error) {
	dir := filepath.Join(f.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("mount: %w", err)
	}
	if err := run("mount", append(args, dir)...); err != nil {
		return "", err
	}
	f.mounts = append(f.mounts, dir)
	return dir, nil
}

// Unmount ends a mount of the field.
func (f *Field) Unmount(dir string) error {
	for i, d := range f.mounts {
		if d == dir {
			f.mounts = append(f.mounts[:i], f.mounts[i+1:]...)
			return unmount(dir)
		}
	}
	return fmt.Errorf("unmount %s: not mounted here", dir)
}

// unmount takes a file system away even from a process that has not ended yet.
func unmount(dir string) error {
	if err := run("umount", dir); err != nil {
		return run("umount", "-l", dir)
	}
	return nil
}
