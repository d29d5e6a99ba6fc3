package servicetest_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rtcd/config"
	"rtcd/service"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey = "the-admin-key-of-these-tests-0123456789"

// start runs a server on loopback ports of its own and stops it with the test. It returns the
// address of its API. A nil log discards.
func start(t *testing.T, change func(*config.Config), log io.Writer) string {
	t.Helper()
	if log == nil {
		log = io.Discard
	}
	addr, _ := startWith(t, change, service.Options{
		Log:         slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		MemoryStore: true,
	})
	return addr
}

// startWith is start with any options. It returns what stops the server before the test's end, too.
func startWith(t *testing.T, change func(*config.Config), opts service.Options) (addr string, end func()) {
	t.Helper()
	cfg := config.Default()
	cfg.API.HTTP.ListenAddress = "127.0.0.1:0"
	cfg.API.Admin.ListenAddress = ""
	cfg.API.Security.AllowSelfRegistration = true
	cfg.API.Security.EnableAdmin = true
	cfg.API.Security.AdminSecretKey = adminKey
	cfg.RTC.ICEAddressUDP, cfg.RTC.ICEAddressTCP = "127.0.0.1", "127.0.0.1"
	cfg.RTC.ICEPortUDP = int(rtctest.FreePort(t))
	cfg.RTC.ICEPortTCP = cfg.RTC.ICEPortUDP
	cfg.RTC.UDPSocketsCount = 2
	cfg.Shutdown.DrainDeadline = time.Millisecond
	if change != nil {
		change(&cfg)
	}
	srv, err := service.New(t.Context(), cfg, opts)
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Run(ctx) }()
	end = sync.OnceFunc(func() {
		stop()
		select {
		case err := <-stopped:
			if err != nil {
				t.Errorf("server ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("server does not stop")
		}
	})
	t.Cleanup(end)
	return srv.Addr().String(), end
}

// connected makes a backend that is registered and has a link.
func connected(t *testing.T, addr, id string) *servicetest.Backend {
	t.Helper()
	b := servicetest.NewBackend(t, addr, id)
	b.Register(t)
	b.Dial(t)
	return b
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// await waits until ok holds of a backend's messages.
func await(ctx context.Context, t *testing.T, b *servicetest.Backend, what string, ok func() bool) {
	t.Helper()
	if err := b.Await(ctx, ok); err != nil {
		for _, m := range b.Messages() {
			t.Logf("%s got %s %s%s %v %.60q", b.ID, m.Type, m.SessionID, m.Signal.SessionID, m.Signal.Type, m.Signal.Data)
		}
		t.Fatalf("%s: %s: %v", b.ID, what, err)
	}
}

// awaitHears waits until e has heard so many packets of every sender.
func awaitHears(ctx context.Context, t *testing.T, who string, e *rtctest.Endpoint, packets int, senders ...string) {
	t.Helper()
	if err := e.Await(ctx, servicetest.HearsAll(packets, senders...)); err != nil {
		for _, s := range senders {
			t.Logf("%s heard %d packets of %s", who, e.Heard(s).Packets, s)
		}
		t.Fatalf("%s does not hear all of %v: %v", who, senders, err)
	}
}

// hearsMore waits until e has heard so many packets more of every sender than it has now.
func hearsMore(ctx context.Context, t *testing.T, who string, e *rtctest.Endpoint, packets int, senders ...string) {
	t.Helper()
	for _, s := range senders {
		awaitHears(ctx, t, who, e, e.Heard(s).Packets+packets, s)
	}
}

// eventually polls for what has no event.
func eventually(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
