package main

import "syscall"

// ownGroup puts a child into a process group of its own. Should we be killed, it is stopped.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
