package api

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeMachine has as much idle time as a test says.
type fakeMachine struct {
	mu   sync.Mutex
	idle time.Duration
	err  error
}

func (m *fakeMachine) read() (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.idle, m.err
}

func (m *fakeMachine) pass(idle time.Duration, err error) {
	m.mu.Lock()
	m.idle += idle
	m.err = err
	m.mu.Unlock()
	time.Sleep(time.Second) // of the bubble
	synctest.Wait()
}

func TestLoadFollowsIdleTime(t *testing.T) { // H1, D3
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMachine{}
		l := startLoad(m.read, noQuotas)
		defer l.Stop()
		synctest.Wait()
		if got := l.Value(); got != 0 {
			t.Errorf("before the second sample: %v, want 0", got)
		}
		time.Sleep(time.Millisecond) // off the tick
		steps := []struct {
			name string
			idle time.Duration
			err  error
			want float64
		}{
			{"two idle processors", 2 * time.Second, nil, 0.5},
			{"one of two is busy", time.Second, nil, 1},
			{"mostly busy", 100 * time.Millisecond, nil, 10},
			{"fully busy", 0, nil, 1000},
			{"counter steps back", -time.Second, nil, 1000},
			{"unreadable", 0, errors.New("gone"), 1000},
			{"readable again", time.Second, nil, 1000},
			{"measured again", 500 * time.Millisecond, nil, 2},
		}
		for _, s := range steps {
			m.pass(s.idle, s.err)
			got := l.Value()
			if math.Abs(got-s.want) > 1e-9 {
				t.Errorf("%s: %v, want %v", s.name, got, s.want)
			}
			if _, err := json.Marshal(got); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
	})
}

func TestLoadWithoutAnyReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoad(func() (time.Duration, error) { return 0, os.ErrNotExist }, noQuotas)
		time.Sleep(5500 * time.Millisecond)
		l.Stop()
		l.Stop() // twice is fine
		if got := l.Value(); got != 0 {
			t.Errorf("load %v, want 0", got)
		}
	})
}

func TestLoadOfNoInterval(t *testing.T) {
	if got := loadOf(time.Second, 0); math.IsNaN(got) || math.IsInf(got, 0) {
		t.Errorf("load %v is not finite", got)
	}
}

func TestIdleFrom(t *testing.T) {
	write := func(s string) string {
		path := filepath.Join(t.TempDir(), "stat")
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got, err := idleFrom(write("cpu  10 20 30 4567 50 0 0 0 0 0\ncpu0 1 2 3 4 5\n"))
	if err != nil || got != 45670*time.Millisecond {
		t.Errorf("got %v, %v; want 45.67 s", got, err)
	}
	for _, bad := range []string{"", "cpu", "cpu 1 2 3", "cpu 1 2 3 x 5\n", "cpu0 1 2 3 4 5\n", "cpu 1 2 3 -4 5\n"} {
		if got, err := idleFrom(write(bad)); err == nil {
			t.Errorf("%q: %v, want an error", bad, got)
		}
	}
	if _, err := idleFrom("/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := systemIdle(); err != nil {
		t.Errorf("this machine: %v", err)
	}
}

// D3: a server that takes no new calls shows more than any that does, and goes on measuring.
func TestLoadWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMachine{}
		l := startLoad(m.read, noQuotas)
		defer l.Stop()
		synctest.Wait()
		l.Refuse(true)
		if got := l.Value(); got != DrainLoad {
			t.Errorf("before the first sample: %v", got)
		}
		time.Sleep(time.Millisecond)
		for idle, want := range map[time.Duration]float64{0: DrainLoad + MaxLoad, 2 * time.Second: DrainLoad + 0.5} {
			m.pass(idle, nil)
			got := l.Value()
			if got != want {
				t.Errorf("with %v idle: %v, want %v", idle, got, want)
			}
			text, err := json.Marshal(got)
			var back float64
			if err != nil || json.Unmarshal(text, &back) != nil || back != got || float32(got) < DrainLoad {
				t.Errorf("%v is %s is %v: %v", got, text, back, err)
			}
		}
		l.Refuse(false)
		if got := l.Value(); got > MaxLoad {
			t.Errorf("new calls are taken again: %v", got)
		}
	})
}

// A tick that comes late makes nobody busier than busy.
func TestLoadOfALateTick(t *testing.T) {
	if got := loadOf(0, time.Minute); got != MaxLoad {
		t.Errorf("load %v, want %v", got, MaxLoad)
	}
}
