package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"rtcd/client"
	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/cmd/rtcd-load/internal/scenario"
)

const usage = `rtcd-load joins people to calls on a server, has them send media that can be checked, and
reports join time, delivery, one-way delay, order, freezes and the server's CPU per packet.

usage:
  rtcd-load [flags]                    rooms of one shape, said by flags
  rtcd-load [flags] -scenario FILE     rooms of any shapes; -sample prints such a file
  rtcd-load -sample > load.toml

The exit code is 0 if all went well, 1 if an objective of -slo was missed, 2 if the command line or
a file is wrong, 3 if it could not run.

Keys are taken from the environment, too: RTCD_LOAD_AUTH_KEY, RTCD_LOAD_ADMIN_KEY.

flags:
`

// options are what the command line says.
type options struct {
	scenario *scenario.Scenario
	slo      *report.SLO
	client   client.Config

	unregister, channel bool
	sample, sampleSLO   bool
	quiet               bool
	pid                 int
	metrics             string
	json, html          string
	localIP             string
}

// shapeFlags are those that a scenario file takes the place of.
var shapeFlags = []string{
	"rooms", "people", "voices", "cameras", "screens", "simulcast", "bitrate", "fps", "ramp", "muters", "joiners", "leavers",
	"voice-bytes",
}

// values are those of the flags that are not options themselves.
type values struct {
	server, id, key, admin, signalling string
	file, slo                          string
	duration, settle, ramp             time.Duration
	room                               scenario.Room
	simulcast                          bool
	bitrate, fps                       int
	up, down                           scenario.Impairment
}

// define defines all flags.
func (o *options) define(f *flag.FlagSet) *values {
	v := &values{}
	f.StringVar(&v.server, "server", "http://127.0.0.1:8045", "`URL` of the server's API")
	f.StringVar(&v.id, "client-id", "", "client `id` to register or use; empty: one of its own, unregistered at the end")
	f.StringVar(&v.key, "auth-key", "", "`key` of the client, 32 to 72 bytes; empty: a random one")
	f.StringVar(&v.admin, "admin-key", "", "admin `key`, for servers without self-registration")
	f.StringVar(&o.localIP, "local-ip", "", localHelp)
	f.StringVar(&v.signalling, "signalling", "channel", "way of the server's offers: `channel` or backend")

	f.StringVar(&v.file, "scenario", "", "scenario `file`; the flags for rooms are not used with it")
	f.BoolVar(&o.sample, "sample", false, "print a sample scenario and exit")
	f.DurationVar(&v.duration, "duration", scenario.DefaultDuration, "how long is measured")
	f.DurationVar(&v.settle, "settle", scenario.DefaultSettle, "wait between the joins and that")
	r := &v.room
	f.IntVar(&r.Count, "rooms", 1, "rooms")
	f.IntVar(&r.People, "people", 3, "people in each")
	f.IntVar(&r.Voices, "voices", -1, "of them who speak; -1: all")
	f.IntVar(&r.Cameras, "cameras", 0, "of them who send a camera")
	f.IntVar(&r.Screens, "screens", 0, "of them who share a screen")
	f.IntVar(&r.Muters, "muters", 0, "of the voices who mute and unmute themselves")
	f.IntVar(&r.Joiners, "joiners", 0, "people more who come while it is measured")
	f.IntVar(&r.Leavers, "leavers", 0, "of the people who leave while it is measured")
	f.IntVar(&r.VoiceBytes, "voice-bytes", scenario.DefaultVoiceBytes, "payload of a voice's packet")
	f.BoolVar(&v.simulcast, "simulcast", false, "cameras send three layers")
	f.IntVar(&v.bitrate, "bitrate", 0, "`bit/s` of cameras and screens; 0: 800,000 and 1,500,000")
	f.IntVar(&v.fps, "fps", 0, "pictures a second; 0: 25 of cameras, 15 of screens")
	f.DurationVar(&v.ramp, "ramp", 2*time.Second, "time over which people join")
	for _, way := range []struct {
		suffix, when string
		to           *scenario.Impairment
	}{{"", "before they leave", &v.up}, {"-down", "after they have come", &v.down}} {
		f.Float64Var(&way.to.Loss, "loss"+way.suffix, 0, "`share` of its own packets that are lost "+way.when+", 0 to 1")
		f.DurationVar((*time.Duration)(&way.to.Delay), "delay"+way.suffix, 0, "delay of its own packets "+way.when)
		f.DurationVar((*time.Duration)(&way.to.Jitter), "jitter"+way.suffix, 0, "at most added to that delay")
	}

	f.IntVar(&o.pid, "pid", 0, "process `id` of the server, to measure its CPU and memory (Linux)")
	f.StringVar(&o.metrics, "metrics", "", "`URL` of the server's metrics, for the same")
	f.StringVar(&o.json, "json", "", "write all that was found to a `file`")
	f.StringVar(&o.html, "html", "", "write a page with plots to a `file`")
	f.StringVar(&v.slo, "slo", "", "`file` of objectives to hold it against; -sample-slo prints one")
	f.BoolVar(&o.sampleSLO, "sample-slo", false, "print sample objectives and exit")
	f.BoolVar(&o.quiet, "quiet", false, "show no progress")
	return v
}

// parseFlags reads the command line, the files it names and the environment.
func parseFlags(args []string, getenv func(string) string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("rtcd-load", flag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are told once, by the caller
	f.Usage = func() {}
	v := o.define(f)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = io.WriteString(stderr, usage)
			f.SetOutput(stderr)
			f.PrintDefaults()
		}
		return nil, err
	}
	if o.sample || o.sampleSLO {
		return o, nil
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see -h", f.Arg(0))
	}
	given := make(map[string]bool)
	f.Visit(func(set *flag.Flag) { given[set.Name] = true })
	if err := o.load(v, given); err != nil {
		return nil, err
	}
	switch v.signalling {
	case "channel":
		o.channel = true
	case "backend":
	default:
		return nil, fmt.Errorf("-signalling %q is neither channel nor backend", v.signalling)
	}
	if o.pid < 0 {
		return nil, fmt.Errorf("-pid %d is no process id", o.pid)
	}
	if err := checkAddresses(o.localIP); err != nil {
		return nil, err
	}
	if v.key == "" {
		v.key = getenv("RTCD_LOAD_AUTH_KEY")
	}
	if v.admin == "" {
		v.admin = getenv("RTCD_LOAD_ADMIN_KEY")
	}
	return o, o.credentials(v)
}

// load reads the scenario, or makes it of flags, and the objectives.
func (o *options) load(v *values, given map[string]bool) (err error) {
	if v.file == "" {
		o.scenario = v.scenario(given)
	} else {
		for _, name := range shapeFlags {
			if given[name] {
				return fmt.Errorf("-%s says what rooms are like, and so does -scenario: use one of them", name)
			}
		}
		if o.scenario, err = scenario.Load(v.file); err != nil {
			return err
		}
		o.override(v, given)
	}
	if err := o.scenario.Validate(); err != nil {
		return err
	}
	if v.slo != "" {
		o.slo, err = report.LoadSLO(v.slo)
	}
	return err
}

// scenario returns the one that flags say.
func (v *values) scenario(given map[string]bool) *scenario.Scenario {
	r := v.room
	if r.Voices < 0 {
		r.Voices = r.People
	}
	r.Name, r.Ramp, r.MuteEvery = "room", scenario.Duration(v.ramp), scenario.Duration(scenario.DefaultMuteEvery)
	r.Camera, r.Screen = scenario.DefaultCamera, scenario.DefaultScreen
	r.Camera.Simulcast, r.JoinersTalk = v.simulcast, true
	for _, to := range []*scenario.Video{&r.Camera, &r.Screen} {
		if given["bitrate"] && v.bitrate != 0 {
			to.Bitrate = v.bitrate
		}
		if given["fps"] && v.fps != 0 {
			to.FPS = v.fps
		}
	}
	return &scenario.Scenario{
		Name: "flags", Duration: scenario.Duration(v.duration), Settle: scenario.Duration(v.settle),
		Up: v.up, Down: v.down, Rooms: []scenario.Room{r},
	}
}

// override sets what flags say beside a scenario file.
func (o *options) override(v *values, given map[string]bool) {
	s, up, down := o.scenario, &v.up, &v.down
	if given["duration"] {
		s.Duration = scenario.Duration(v.duration)
	}
	if given["settle"] {
		s.Settle = scenario.Duration(v.settle)
	}
	for flag, set := range map[string]func(){
		"loss": func() { s.Up.Loss = up.Loss }, "loss-down": func() { s.Down.Loss = down.Loss },
		"delay": func() { s.Up.Delay = up.Delay }, "delay-down": func() { s.Down.Delay = down.Delay },
		"jitter": func() { s.Up.Jitter = up.Jitter }, "jitter-down": func() { s.Down.Jitter = down.Jitter },
	} {
		if given[flag] {
			set()
		}
	}
}

// credentials sets who the run is for the server. A client of its own is there for the run only.
func (o *options) credentials(v *values) error {
	o.client = client.Config{
		URL: strings.TrimRight(v.server, "/"), ClientID: v.id, AuthKey: v.key, AdminKey: v.admin, AutoRegister: true,
		SendQueue: 1 << 16, SendQueueBytes: 64 << 20, EventBuffer: 1 << 14, GiveUpAfter: 30 * time.Second,
	}
	if v.id == "" {
		o.client.ClientID, o.unregister = "rtcd-load-"+random(8), true
	}
	if v.key == "" {
		if v.id != "" {
			return errors.New("a -client-id needs an -auth-key, too")
		}
		o.client.AuthKey = random(24)
	}
	_, err := client.New(o.client)
	return err
}

// random returns n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
