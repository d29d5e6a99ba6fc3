package config

import (
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var namesLine = regexp.MustCompile(`line \d+: `)

// A valid configuration encodes to one that loads equal; an invalid one names a key or a line.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(uncommentedSample(f)), "")
	f.Add([]byte("[rtc]\nice_servers = ['stun:a', {urls=['turn:b'], username='u', credential='p'}]\n"), "RTCD_RTC_ICEHOSTPORTOVERRIDE=1.2.3.4/8443")
	f.Add([]byte(""), `RTCD_RTC_ICESERVERS=[{"urls":["turn:a"],"username":"\u0000","credential":"\n"}]`)
	f.Add([]byte("[shutdown]\ndrain_deadline = '1h30m0.5s'"), "RTCD_LOGGER_FILELOCATION=\x1b\"\\")
	for _, c := range badCases {
		f.Add([]byte(c.toml), strings.Join(c.env, "\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte, environ string) {
		if len(data) > maxFileBytes {
			return
		}
		c, report := load(data, "fuzz.toml", strings.Split(environ, "\n"))
		if text := report.String(); strings.ContainsAny(text, "\x1b\x00\r") {
			t.Fatalf("report holds control characters: %q", text)
		}
		if report.Err != nil {
			faults, ok := errors.AsType[Faults](report.Err)
			if !ok && !namesLine.MatchString(report.Err.Error()) {
				t.Fatalf("names neither key nor line: %v", report.Err)
			}
			for _, fault := range faults {
				name, _, _ := strings.Cut(fault.Key, "[")
				if known().byName[name] == nil && !known().tables[name] || fault.Rule == "" {
					t.Fatalf("no key or no rule: %+v", fault)
				}
			}
			return
		}
		text, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, report2 := load(text, "encoded.toml", nil)
		if report2.Err != nil {
			t.Fatalf("does not load again: %v\n%s", report2.Err, text)
		}
		if !reflect.DeepEqual(again, c) {
			t.Fatalf("loads differently\nonce  %#v\ntwice %#v\n%s", c, again, text)
		}
	})
}
