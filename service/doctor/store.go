package doctor

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
)

// Bounds of the look for files that others may read.
const (
	maxStoreFiles = 1000
	maxStoreDepth = 3
)

// folder returns the folder of the store; see nearest.
func (v *visit) folder() (path string, made, ok bool) {
	if v.MemoryStore {
		return "", false, false
	}
	return v.nearest(v.Config.Store.DataSource)
}

// nearest returns a folder, the nearest there is above it if it has not been made yet, and whether it
// is that one.
func (v *visit) nearest(folder string) (path string, made, ok bool) {
	if folder == "" {
		return "", false, false
	}
	path, err := filepath.Abs(folder)
	if err != nil {
		return "", false, false
	}
	for at := path; ; at = filepath.Dir(at) {
		if info, err := v.host.Stat(at); err == nil && info.IsDir() {
			return at, at == path, true
		}
		if at == filepath.Dir(at) {
			return "", false, false
		}
	}
}

// checkStoreVolume looks at what the store is on.
func checkStoreVolume(_ context.Context, v *visit) {
	path, _, ok := v.folder()
	if !ok {
		return
	}
	vol, err := v.host.Volume(path)
	if err != nil {
		return
	}
	if vol.inMemory() {
		v.add(storeOnTmpfs, "store.data_source = %q is on %s", v.Config.Store.DataSource, vol.Type)
	}
	const mib = 1 << 20
	least := uint64(max(v.Config.Store.MinFreeMiB, 0)) * mib
	switch {
	case vol.Free < least:
		v.add(storeNoSpace, "the volume of store.data_source = %q has %d MiB free, of which store.min_free_mib = %d are to stay",
			v.Config.Store.DataSource, vol.Free/mib, v.Config.Store.MinFreeMiB)
	case vol.Free < 4*least:
		v.add(storeLowSpace, "the volume of store.data_source = %q has %d MiB free; below store.min_free_mib = %d nothing is written",
			v.Config.Store.DataSource, vol.Free/mib, v.Config.Store.MinFreeMiB)
	}
}

// checkRecords looks what the other folders are on whose content is to last.
func checkRecords(_ context.Context, v *visit) {
	folders := map[string]string{"events.dir": v.Config.Events.Dir}
	if v.Config.AuditOn() {
		folders["audit.dir"] = v.Config.Audit.Dir
	}
	for _, key := range slices.Sorted(maps.Keys(folders)) {
		path, _, ok := v.nearest(folders[key])
		if !ok {
			continue
		}
		if vol, err := v.host.Volume(path); err == nil && vol.inMemory() {
			v.add(recordsOnTmpfs, "%s = %q is on %s", key, folders[key], vol.Type)
		}
	}
}

// checkStoreAccess looks who may read and write the store.
func checkStoreAccess(_ context.Context, v *visit) {
	path, made, ok := v.folder()
	if !ok {
		return
	}
	shown := v.Config.Store.DataSource
	for at, first := path, true; ; at, first = filepath.Dir(at), false {
		info, err := v.host.Stat(at)
		world := err == nil && info.Mode().Perm()&0o002 != 0
		sticky := err == nil && info.Mode()&fs.ModeSticky != 0
		switch {
		case world && first && made:
			v.add(storeWorldWritable, "store.data_source = %q has the mode %v", shown, info.Mode())
		case world && !sticky:
			v.add(storeParentOpen, "%q, above store.data_source = %q, has the mode %v", at, shown, info.Mode())
		}
		if world && (!sticky || first && made) || at == filepath.Dir(at) {
			break
		}
	}
	if err := v.host.Writable(path); err != nil {
		v.add(storeNotWritable, "%q of store.data_source = %q: %v", path, shown, err)
	}
	if !made {
		return
	}
	if file, mode := v.readable(path); file != "" {
		v.add(storeWorldReadable, "%q in store.data_source = %q has the mode %v", file, shown, mode)
	}
}

// readable returns a file below dir that every user may read, through folders that let him.
func (v *visit) readable(dir string) (string, fs.FileMode) {
	left := maxStoreFiles
	var found fs.FileMode
	var look func(dir string, depth int) string
	look = func(dir string, depth int) string {
		info, err := v.host.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return ""
		}
		entries, err := v.host.ReadDir(dir)
		if err != nil {
			return ""
		}
		for _, e := range entries {
			if left--; left < 0 {
				return ""
			}
			path := filepath.Join(dir, e.Name())
			if e.IsDir() {
				if depth < maxStoreDepth {
					if file := look(path, depth+1); file != "" {
						return file
					}
				}
				continue
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
				found = info.Mode()
				return path
			} else if errors.Is(err, fs.ErrPermission) {
				return ""
			}
		}
		return ""
	}
	file := look(dir, 0)
	return file, found
}
