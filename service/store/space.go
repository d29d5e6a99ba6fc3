package store

import (
	"io/fs"
	"path/filepath"
)

// Space is the room of a store on its volume, in bytes.
type Space struct {
	Free    uint64 // of the volume
	MinFree uint64 // registrations are refused with less
	Used    uint64 // by the store
}

// Space returns how much room there is; ok is false for a store in memory, and if it cannot be told.
func (s *Store) Space() (sp Space, ok bool) {
	if s.folder == nil {
		return Space{}, false
	}
	free, err := freeBytes(s.folder.path)
	if err != nil {
		return Space{}, false
	}
	sp = Space{Free: free, MinFree: s.folder.minFree}
	_ = filepath.WalkDir(s.folder.path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a file that has gone meanwhile
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sp.Used += uint64(info.Size())
		}
		return nil
	})
	return sp, true
}
