//go:build !unix

package main

import "syscall"

// ownGroup leaves a child in our process group.
func ownGroup() *syscall.SysProcAttr { return nil }
