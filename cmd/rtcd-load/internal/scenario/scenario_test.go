package scenario_test

import (
	"strings"
	"testing"
	"time"

	"rtcd/cmd/rtcd-load/internal/scenario"
)

func TestSampleIsFine(t *testing.T) {
	s, err := scenario.Parse(scenario.Sample)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.People(), 4*7+4+10; got != want {
		t.Errorf("the sample has %d people, want %d", got, want)
	}
	if got := len(s.Plan()); got != s.People() {
		t.Errorf("the plan has %d people, want %d", got, s.People())
	}
}

func TestDefaults(t *testing.T) {
	s, err := scenario.Parse("[[rooms]]\npeople = 2\n")
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rooms[0]
	if r.Name != "room1" || r.Count != 1 || r.VoiceBytes != scenario.DefaultVoiceBytes ||
		r.Camera != scenario.DefaultCamera || time.Duration(s.Duration) != scenario.DefaultDuration {
		t.Errorf("got %+v of %+v", r, s)
	}
}

func TestBadScenarios(t *testing.T) {
	const room = "[[rooms]]\npeople = 4\n"
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "rooms: there are none"},
		{"syntax", "duration = \n", "line 1"},
		{"unknown key", "durration = \"1s\"\n" + room, "durration: no such setting"},
		{"unknown key of a room", room + "voicse = 1", "rooms.voicse: no such setting"},
		{"wrong type", "[[rooms]]\npeople = \"four\"", "people"},
		{"number for a duration", "duration = 5\n" + room, "duration"},
		{"no duration", "duration = \"5\"\n" + room, "\"5\" is no duration"},
		{"too short", "duration = \"10ms\"\n" + room, "duration: 10ms, must be from 1s"},
		{"negative settle", "settle = \"-1s\"\n" + room, "settle: -1s"},
		{"no people", "[[rooms]]\nname = \"x\"", "rooms[0].people: 0, must be from 1 to 1000"},
		{"negative people", "[[rooms]]\npeople = -1", "rooms[0].people: -1"},
		{"too many voices", room + "voices = 5", "rooms[0].voices: 5, must be from 0 to 4"},
		{"too many cameras", room + "cameras = 5", "rooms[0].cameras: 5"},
		{"too many screens", room + "screens = 5", "rooms[0].screens: 5"},
		{"too many leavers", room + "leavers = 5", "rooms[0].leavers: 5"},
		{"muters without voices", room + "muters = 1", "rooms[0].muters: 1, must be from 0 to 0"},
		{"fast muting", room + "voices = 1\nmuters = 1\nmute_every = \"1ms\"", "rooms[0].mute_every"},
		{"tiny voice", room + "voice_bytes = 8", "rooms[0].voice_bytes: 8, must be from 40"},
		{"bitrate", room + "[rooms.camera]\nbitrate = 1", "rooms[0].camera.bitrate: 1"},
		{"fps", room + "[rooms.screen]\nfps = 1000", "rooms[0].screen.fps: 1000"},
		{"loss", "[up]\nloss = 1.5\n" + room, "up.loss: 1.5, must be from 0 to 1"},
		{"loss that is no number", "[up]\nloss = nan\n" + room, "up.loss: NaN"},
		{"delay", "[down]\ndelay = \"1h\"\n" + room, "down.delay: 1h0m0s"},
		{"loss of a room", room + "[rooms.up]\nloss = -0.1", "rooms[0].up.loss: -0.1"},
		{"too many people", "[[rooms]]\ncount = 10000\npeople = 1000", "10000000 people in all"},
		{"long name", room + "name = \"" + strings.Repeat("x", 65) + "\"", "rooms[0].name: 65 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := scenario.Parse(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestAllFaultsAreNamed(t *testing.T) {
	_, err := scenario.Parse("nonsense = 1\n[[rooms]]\npeople = 2\nvoices = 3\ncameras = 3\n")
	for _, want := range []string{"nonsense", "voices", "cameras"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestPlan(t *testing.T) {
	s, err := scenario.Parse(`
duration = "10s"
[up]
loss = 0.1
[[rooms]]
name = "a"
count = 2
people = 4
voices = 2
muters = 1
leavers = 1
joiners = 2
ramp = "4s"
start = "1s"
[[rooms]]
name = "b"
people = 1
screens = 1
[rooms.up]
loss = 0.5
`)
	if err != nil {
		t.Fatal(err)
	}
	plan := s.Plan()
	if len(plan) != 13 {
		t.Fatalf("%d people, want 13", len(plan))
	}
	rooms := make(map[int]string)
	voices, leavers, late, mutes := 0, 0, 0, 0
	for _, p := range plan {
		if call, ok := rooms[p.Room]; ok && call != p.Call {
			t.Errorf("room %d is called %s and %s", p.Room, call, p.Call)
		}
		rooms[p.Room] = p.Call
		if p.Voice {
			voices++
		}
		if p.Mutes {
			mutes++
		}
		if p.Leaves > 0 {
			leavers++
		}
		if p.Late {
			late++
		}
		if p.Leaves > 10*time.Second || p.Late && (p.Joins <= 0 || p.Joins >= 10*time.Second) {
			t.Errorf("%s joins at %v and leaves at %v", p.Name, p.Joins, p.Leaves)
		}
		if !p.Late && p.Call != "b" && (p.Joins < time.Second || p.Joins >= 5*time.Second) {
			t.Errorf("%s joins at %v, want within 1s and 5s", p.Name, p.Joins)
		}
	}
	if len(rooms) != 3 || voices != 4 || mutes != 2 || leavers != 2 || late != 4 {
		t.Errorf("%d rooms, %d voices, %d muters, %d leavers, %d late, want 3, 4, 2, 2, 4",
			len(rooms), voices, mutes, leavers, late)
	}
	if up, _ := s.Impairments(0); up.Loss != 0.1 {
		t.Errorf("loss of rooms a is %v, want 0.1", up.Loss)
	}
	if up, _ := s.Impairments(1); up.Loss != 0.5 {
		t.Errorf("loss of room b is %v, want 0.5", up.Loss)
	}
	if s.Rooms[0].HasVideo() || !s.Rooms[1].HasVideo() {
		t.Error("room b has video, rooms a have none")
	}
}
