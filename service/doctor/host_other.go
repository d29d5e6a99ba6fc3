//go:build !linux

package doctor

import "errors"

func volumeOf(string) (Volume, error)         { return Volume{}, errors.ErrUnsupported }
func writable(string) error                   { return nil }
func openFiles() (uint64, error)              { return 0, errors.ErrUnsupported }
func synchronised() (bool, error)             { return false, errors.ErrUnsupported }
func grantedBuffers(int) (int, int, error)    { return 0, 0, errors.ErrUnsupported }
func holderOf(string, uint16) (Process, bool) { return Process{}, false }
