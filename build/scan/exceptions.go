package main

import "strings"

// An exception is something that gosec complains of and that is meant.
type exception struct {
	rule string
	path string // prefix of the files it holds for; empty: all
	why  string
}

// exceptions are all there are. One that nothing needs any more is a fault itself.
var exceptions = []exception{
	{"G115", "", "conversions between integers are those of wire formats, whose fields are as wide as they are, and of lengths that were bounded before; the parsers are fuzzed"},
	{"G304", "", "paths of files are the operator's, from the configuration or the command line; nothing from a network becomes a path"},
	{"G404", "", "what must not be guessed is made by crypto/rand; jitter, test media and the first numbers of streams need not be"},
	{"G103", "service/rtc/netio/", "system calls that package net does not offer: batches of messages, segmentation"},
	{"G101", "service/access/access.go", "names of reasons, no credentials"},
	{"G117", "cmd/rtcd/clients.go", "the key is sent to the server that is to know it, as the protocol says"},
	{"G302", "service/store/folder.go", "a folder, not a file: 0700"},
	{"G302", "service/audit/", "a folder, not a file: 0700"},
	{"G602", "service/audit/journal.go", "the length was checked"},
	{"G301", "service/logging/rotate.go", "the folder of the log may be read by who reads logs"},
	{"G306", "service/rtc/rtctest/", "reports of tests"},
	{"G704", "cmd/rtcd-load/", "the load tester connects to what its user names"},
	{"G203", "service/report/page.go", "the style sheet, a constant of ours"},
	{"G402", "service/doctor/ports.go", "who answers at an address is asked; nothing secret is sent, and what is answered is shown, not believed"},
	{"G402", "cmd/rtcd/healthcheck.go", "the server on this machine is asked whether it is well; nothing secret is sent"},
	{"G204", "cmd/rtcd/successor_unix.go", "the program itself, with the arguments that it has"},
	{"G702", "cmd/rtcd/successor_unix.go", "the program itself, with the arguments that it has"},
	{"G203", "cmd/rtcd-load/internal/report/", "a plot drawn from numbers"},
}

// exceptionOf returns the index of the exception that holds, or -1.
func exceptionOf(rule, file string) int {
	for i, e := range exceptions {
		if e.rule == rule && strings.HasPrefix(file, e.path) {
			return i
		}
	}
	return -1
}
