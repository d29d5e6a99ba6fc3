package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var when = time.Date(2026, 11, 22, 5, 49, 23, 272_900_000, time.FixedZone("", 2*3600))

// record returns a record of this line of this file, and the caller that a line should name.
func record(level slog.Level, msg string, attrs ...slog.Attr) (slog.Record, string) {
	pc, _, line, _ := runtime.Caller(0)
	r := slog.NewRecord(when, level, msg, pc)
	r.AddAttrs(attrs...)
	return r, fmt.Sprintf("logging_test.go:%d", line)
}

func lineOf(t testing.TB, f format, level slog.Level, msg string, attrs ...slog.Attr) (line, caller string) {
	t.Helper()
	var b bytes.Buffer
	r, caller := record(level, msg, attrs...)
	if err := newHandler(&b, f, LevelStdlog).Handle(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	return b.String(), caller
}

type hush string

func (hush) LogValue() slog.Value { return slog.StringValue("[redacted]") }

type bomb struct{}

func (bomb) String() string { panic("boom") }

func TestJSONLine(t *testing.T) {
	line, caller := lineOf(t, jsonFormat, slog.LevelInfo, `client "connected"`,
		slog.String("clientID", "c1"), slog.Int("code", 201), slog.Uint64("ssrc", math.MaxUint64), slog.Bool("ok", true),
		slog.Duration("duration", 1500*time.Millisecond), slog.Time("since", when), slog.Float64("rate", 0.5), slog.Float64("nan", math.NaN()),
		slog.Any("error", errors.New("no <route>")), slog.Any("addr", netip.MustParseAddr("::1")), slog.Any("list", []string{"a", "b\u202e"}),
		slog.Any("nil", nil), slog.Group("http", slog.String("method", "GET"), slog.Any("key", hush("canary"))),
		slog.String("level", "spoofed"), slog.Any("bomb", bomb{}), slog.Any("chan", make(chan int)), slog.Attr{})
	want := `{"timestamp":"2026-11-22 03:49:23.272 Z","level":"info","msg":"client \"connected\"","caller":"` + caller + `"` +
		`,"clientID":"c1","code":201,"ssrc":18446744073709551615,"ok":true,"duration":"1.5s","since":"2026-11-22 03:49:23.272 Z"` +
		`,"rate":0.5,"nan":"NaN","error":"no <route>","addr":"::1","list":["a","b\u202e"],"nil":null` +
		`,"http.method":"GET","http.key":"[redacted]","field.level":"spoofed","bomb":"!PANIC: boom","chan":"!ERROR: json: unsupported type: chan int"}` + "\n"
	if line != want {
		t.Errorf("got  %swant %s", line, want)
	}
	if !json.Valid([]byte(line)) {
		t.Error("not JSON")
	}
}

func TestPlainLine(t *testing.T) {
	line, caller := lineOf(t, plainFormat(false), slog.LevelInfo, "message padded to 45",
		slog.String("key", "value"), slog.String("other", "value with blanks"), slog.String("empty", ""), slog.Int("n", 7),
		slog.String("eq", "a=b"), slog.String("q", `say "x\y"`), slog.String("addr", "[::]:8045"), slog.Any("list", []int{1, 2}), slog.Any("key", hush("canary")))
	want := "info  [2026-11-22 03:49:23.272 Z] message padded to 45" + strings.Repeat(" ", 25) + " caller=" + caller +
		` key=value other="value with blanks" empty="" n=7 eq="a=b" q="say \"x\\y\"" addr=[::]:8045 list=[1,2] key=[redacted]` + "\n"
	if line != want {
		t.Errorf("got  %swant %s", line, want)
	}
	long := strings.Repeat("ä", 46)
	line, caller = lineOf(t, plainFormat(false), slog.LevelError, long)
	if want := "error [2026-11-22 03:49:23.272 Z] " + long + " caller=" + caller + "\n"; line != want {
		t.Errorf("got  %swant %s", line, want)
	}
	line, _ = lineOf(t, plainFormat(true), slog.LevelWarn, "m")
	if want := "\x1b[33mwarn \x1b[0m [2026-11-22 03:49:23.272 Z] m"; !strings.HasPrefix(line, want) {
		t.Errorf("got %q, want a start of %q", line, want)
	}
	var b bytes.Buffer
	if err := newHandler(&b, plainFormat(false), 0).Handle(context.Background(), slog.Record{Message: "bare"}); err != nil || b.String() != "info  bare\n" {
		t.Errorf("without time and caller: %q, %v", b.String(), err)
	}
}

// Nothing that comes from outside starts a line of its own or changes how one shows.
func TestInjection(t *testing.T) {
	evil := "x\n{\"level\":\"error\"}\r\x1b[2J\x1b]0;t\a\x00\x7f\u0085\u2028\u202e\u2066\u200b\ufeff\U000e0001\xff\"\\ \t="
	for name, f := range map[string]format{"json": jsonFormat, "plain": plainFormat(false)} {
		line, _ := lineOf(t, f, slog.LevelInfo, evil, slog.String(evil, evil), slog.Any("error", errors.New(evil)),
			slog.Any("list", []string{evil}), slog.Any("map", map[string]string{evil: evil}), slog.Any("b", []byte(evil)), slog.Group(evil, slog.Int("n", 1)))
		if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
			t.Errorf("%s: more than one line: %q", name, line)
		}
		for _, r := range strings.TrimSuffix(line, "\n") {
			if !printable(r) {
				t.Errorf("%s: holds %U: %q", name, r, line)
				break
			}
		}
		if strings.Contains(line, "\xff") {
			t.Errorf("%s: holds invalid UTF-8: %q", name, line)
		}
		if name != "json" {
			continue
		}
		var back map[string]any
		if err := json.Unmarshal([]byte(line), &back); err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(evil, "\xff", "\ufffd"); back["msg"] != want || back["error"] != want || back["level"] != "info" {
			t.Errorf("does not read back: %q", back)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("msg", "key", "value")
	f.Add("\n", "\x1b", "\u202e\xff")
	f.Add(`"\`, "level", "a b=c")
	f.Fuzz(func(t *testing.T, msg, key, value string) {
		line, _ := lineOf(t, jsonFormat, slog.LevelInfo, msg, slog.String(key, value))
		var back map[string]any
		if err := json.Unmarshal([]byte(line), &back); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if want := string([]rune(msg)); back["msg"] != want {
			t.Fatalf("got %q, want %q", back["msg"], want)
		}
		plain, _ := lineOf(t, plainFormat(false), slog.LevelInfo, msg, slog.String(key, value))
		for _, r := range strings.TrimSuffix(line, "\n") + strings.TrimSuffix(plain, "\n") {
			if !printable(r) {
				t.Fatalf("holds %U: %q %q", r, line, plain)
			}
		}
	})
}

// The handler keeps the contract of slog; groups are read back from their flat keys.
func TestContract(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		b.Reset()
		return newHandler(&b, jsonFormat, slog.LevelDebug)
	}, func(t *testing.T) map[string]any {
		var flat map[string]any
		if err := json.Unmarshal(b.Bytes(), &flat); err != nil {
			t.Fatal(err)
		}
		nested := map[string]any{}
		for key, v := range flat {
			if key == "timestamp" {
				key = slog.TimeKey
			}
			at := nested
			parts := strings.Split(key, ".")
			for _, group := range parts[:len(parts)-1] {
				if at[group] == nil {
					at[group] = map[string]any{}
				}
				at = at[group].(map[string]any)
			}
			at[parts[len(parts)-1]] = v
		}
		return nested
	})
}

func TestLevels(t *testing.T) {
	names := []string{"panic", "fatal", "error", "warn", "info", "debug", "trace", "stdlog"}
	for i, name := range names {
		for _, spelled := range []string{name, strings.ToUpper(name)} {
			level, err := ParseLevel(spelled)
			if err != nil || levelName(level) != name {
				t.Fatalf("%s: %v, %v", spelled, level, err)
			}
		}
		var b bytes.Buffer
		log, out, err := New(Config{EnableConsole: true, ConsoleJSON: true, ConsoleLevel: name, Console: &b})
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range names {
			level, _ := ParseLevel(other)
			log.Log(context.Background(), level, "m")
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range regexp.MustCompile(`"level":"([a-z]+)"`).FindAllStringSubmatch(b.String(), -1) {
			got = append(got, m[1])
		}
		if strings.Join(got, " ") != strings.Join(names[:i+1], " ") {
			t.Errorf("%s lets %v through", name, got)
		}
	}
	if _, err := ParseLevel("verbose"); err == nil {
		t.Error("unknown level accepted")
	}
	if got := levelName(slog.LevelInfo + 2); got != "info" {
		t.Errorf("between info and warn: %s", got)
	}
	if got := levelName(LevelStdlog - 1); got != "stdlog" {
		t.Errorf("below all: %s", got)
	}
}

func TestConsoleAndFile(t *testing.T) {
	var console bytes.Buffer
	path := filepath.Join(t.TempDir(), "logs", "rtcd.log")
	log, closer, err := New(Config{
		EnableConsole: true, ConsoleLevel: "info", Console: &console,
		EnableFile: true, FileJSON: true, FileLevel: "debug", FileLocation: path,
	})
	if err != nil {
		t.Fatal(err)
	}
	log = log.With("call", "c 1").WithGroup("g")
	log.Debug("fine", "a", 1)
	log.Info("coarse", "a", 2)
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	if got := console.String(); strings.Contains(got, "fine") || !strings.HasSuffix(got, ` call="c 1" g.a=2`+"\n") {
		t.Errorf("console: %q", got)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != 2 || !strings.Contains(string(text), `"level":"debug","msg":"fine","caller":"logging_test.go:`) {
		t.Errorf("file: %s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	log.Info("after close") // must not fail
}

func TestFileThatCannotBeWritten(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, location := range []string{"", blocked + "/rtcd.log", filepath.Dir(blocked)} {
		for _, enableConsole := range []bool{true, false} {
			var console bytes.Buffer
			log, closer, err := New(Config{
				EnableConsole: enableConsole, ConsoleLevel: "error", Console: &console,
				EnableFile: true, FileLevel: "info", FileLocation: location,
			})
			if err != nil {
				t.Fatalf("%q stops the start: %v", location, err)
			}
			log.Info("a line")
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
			if got := console.String(); !strings.HasPrefix(got, "warn  [") || !strings.Contains(got, "log file cannot be written") {
				t.Errorf("%q: no warning: %q", location, got)
			}
			if shown := strings.Contains(console.String(), "a line"); shown == enableConsole {
				t.Errorf("%q: console on %v, line shown %v", location, enableConsole, shown)
			}
		}
	}
}

func TestNewRefusesUnknownLevels(t *testing.T) {
	for _, cfg := range []Config{
		{EnableConsole: true, ConsoleLevel: "loud"},
		{EnableFile: true, FileLevel: "", FileLocation: "x"},
	} {
		if _, _, err := New(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
	log, closer, err := New(Config{})
	if err != nil || log.Enabled(context.Background(), LevelPanic) || closer.Close() != nil {
		t.Errorf("nothing enabled: %v", err)
	}
}

// Trouble with an open file shows on the console, once in a while.
func TestLaterTroubleIsReported(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	var console bytes.Buffer
	log, closer, err := New(Config{
		EnableConsole: true, ConsoleLevel: "error", Console: &console,
		EnableFile: true, FileLevel: "info", FileLocation: "/dev/full",
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		log.Info("lost")
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(console.String(), "no space left on device"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, console.String())
	}
	for _, target := range closer.Targets() {
		if want := map[string]uint64{"console": 0, "file": 100}[target.Name]; target.Lost() != want {
			t.Errorf("%s: %d lines lost", target.Name, target.Lost())
		}
	}
}

func BenchmarkPlain(b *testing.B) {
	log := slog.New(newHandler(io.Discard, plainFormat(false), slog.LevelInfo)).With("group", "g", "call", "c", "session", "s")
	b.ReportAllocs()
	for b.Loop() {
		log.LogAttrs(context.Background(), slog.LevelInfo, "session joined", slog.String("userID", "u"))
	}
}
