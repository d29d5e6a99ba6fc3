// Package packaging tests what the server is shipped as: the unit, the packages, the image, the chart.
package packaging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const root = "../.."

// heavy skips what builds and installs, unless it is asked for.
func heavy(t *testing.T) {
	t.Helper()
	if os.Getenv("RTCD_PACKAGE_TESTS") == "" {
		t.Skip("SKIPPED, NOTHING WAS BUILT: set RTCD_PACKAGE_TESTS=1")
	}
}

func needs(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("SKIPPED, NOTHING WAS CHECKED: no %s", name)
		}
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOTHING WAS CHECKED: a chroot takes root")
	}
}

// run runs a program to its end and returns what it printed.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%.4000s", name, args, err, out)
	}
	return string(out)
}

func TestUnit(t *testing.T) {
	needs(t, "systemd-analyze")
	out := run(t, nil, "systemd-analyze", "security", "--offline=true", root+"/build/systemd/rtcd.service")
	m := regexp.MustCompile(`exposure level for rtcd.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 2.5 {
		t.Errorf("exposure level %s, want 2.5 at most", m[1])
	}
	text, err := os.ReadFile(root + "/build/systemd/rtcd.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "rtcd.service")
	if err := os.WriteFile(unit, bytes.Replace(text, []byte("/usr/bin/rtcd "), []byte("/bin/true "), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, nil, "systemd-analyze", "verify", "--man=no", unit); strings.Contains(out, "rtcd.service:") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}

// freePort returns a port of TCP and UDP on loopback that is free now, and allowed for media.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port <= 49151 {
			return port
		}
	}
}

// serves starts the server, asks it whether it is well, registers a backend and stops it.
func serves(t *testing.T, api int, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	url := fmt.Sprintf("http://127.0.0.1:%d", api)
	healthy := false
	for end := time.Now().Add(30 * time.Second); !healthy && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("ended: %v\n%s", err, out.String())
		default:
		}
		if resp, err := http.Get(url + "/healthz"); err == nil {
			_ = resp.Body.Close()
			healthy = resp.StatusCode == http.StatusOK
		}
	}
	if !healthy {
		t.Error("/healthz does not answer 200 within 30 s")
	} else {
		body := `{"clientID":"acme","authKey":"` + strings.Repeat("k", 40) + `"}`
		resp, err := http.Post(url+"/register", "application/json", strings.NewReader(body))
		if err != nil {
			t.Errorf("register: %v", err)
		} else {
			text, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				t.Errorf("register: %s %s", resp.Status, text)
			}
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
		t.Error("it does not stop within 20 s of SIGTERM")
	}
	if t.Failed() {
		t.Logf("the server:\n%s", out.String())
	}
}

func environ(api, media int) []string {
	return []string{
		fmt.Sprintf("RTCD_API_HTTP_LISTENADDRESS=127.0.0.1:%d", api), "RTCD_API_ADMIN_LISTENADDRESS=",
		"RTCD_API_SECURITY_ALLOWSELFREGISTRATION=true", "RTCD_RTC_ICEADDRESSUDP=127.0.0.1", "RTCD_RTC_ICEADDRESSTCP=127.0.0.1",
		fmt.Sprintf("RTCD_RTC_ICEPORTUDP=%d", media), fmt.Sprintf("RTCD_RTC_ICEPORTTCP=%d", media),
	}
}

// The image's root file system, made by the instructions of its Dockerfile without Docker, runs as its
// user, read-only but for the volumes, without capabilities.
func TestImage(t *testing.T) {
	heavy(t)
	needsRoot(t)
	needs(t, "unshare", "mount")
	text, err := os.ReadFile(root + "/build/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	first, last, ok := strings.Cut(joined, "\nFROM scratch\n")
	if !ok {
		t.Fatal("the last stage is not FROM scratch")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // for its user
		t.Fatal(err)
	}
	fs := filepath.Join(dir, "rootfs")
	for _, m := range regexp.MustCompile(`(?m)^RUN (.+)$`).FindAllStringSubmatch(first, -1) {
		if m[1] == "go mod download" {
			continue
		}
		line := strings.NewReplacer("${VERSION}", "v1.3.0", "${HASH}", "").Replace(m[1])
		run(t, nil, "sh", "-ec", "cd "+root+" && "+strings.ReplaceAll(line, "/rootfs", fs))
	}
	env := regexp.MustCompile(`\b(RTCD_[A-Z_]+)=(\S+)`).FindAllString(last, -1)
	user := regexp.MustCompile(`(?m)^USER (\d+):(\d+)$`).FindStringSubmatch(last)
	entry := regexp.MustCompile(`(?m)^ENTRYPOINT \["([^"]+)"\]$`).FindStringSubmatch(last)
	if user == nil || user[1] == "0" || entry == nil || !strings.Contains(last, `CMD ["/usr/bin/rtcd", "healthcheck"]`) {
		t.Fatalf("user %v, entry point %v", user, entry)
	}
	if out := run(t, nil, "sh", "-c", "ldd "+fs+"/usr/bin/rtcd 2>&1 || true"); !strings.Contains(out, "not a dynamic") {
		t.Errorf("the binary is not static: %s", out)
	}
	api := freePort(t)
	// Whoever is no root after chroot has no capabilities: the change of the user takes them all away.
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", fmt.Sprintf(`
mount --bind %[1]s %[1]s
mount --bind %[1]s/var/lib/rtcd %[1]s/var/lib/rtcd
mount -o remount,ro,bind %[1]s
exec chroot --userspec=%[2]s:%[3]s --groups= %[1]s %[4]s`, fs, user[1], user[2], entry[1]))
	cmd.Env = append(env, environ(api, freePort(t))...)
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	serves(t, api, cmd)
}

// packages builds the deb and the rpm of a version and returns their folder.
func packages(t *testing.T, version string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	run(t, []string{"OUT=" + dir}, "sh", "build.sh", version)
	return dir
}

func glob(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	return found[0]
}

// chroot is a small Debian, made once and copied. RTCD_CHROOT is one that is there already.
func chroot(t *testing.T) string {
	t.Helper()
	base := os.Getenv("RTCD_CHROOT")
	if base == "" {
		base = "/var/tmp/rtcd-chroot/bookworm"
	}
	if _, err := os.Stat(base + "/usr/sbin/adduser"); err != nil {
		if _, err := exec.LookPath("debootstrap"); err != nil {
			t.Skip("SKIPPED, NOTHING WAS INSTALLED: no chroot and no debootstrap")
		}
		run(t, nil, "debootstrap", "--variant=minbase", "--include=adduser", "bookworm", base)
	}
	dir := filepath.Join(t.TempDir(), "root")
	run(t, nil, "cp", "-a", base, dir)
	return dir
}

// The deb installs, its server runs as its user, an upgrade keeps the configuration, purge takes all away.
func TestDeb(t *testing.T) {
	heavy(t)
	needsRoot(t)
	needs(t, "chroot", "dpkg-deb")
	jail := chroot(t)
	inside := func(args ...string) string {
		t.Helper()
		return run(t, []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}, "chroot", append([]string{jail}, args...)...)
	}
	install := func(version string) string {
		t.Helper()
		run(t, nil, "cp", glob(t, packages(t, version)+"/*.deb"), jail+"/rtcd.deb")
		return inside("dpkg", "-i", "/rtcd.deb")
	}
	if out := install("v1.3.0"); !strings.Contains(out, "not started") {
		t.Errorf("it does not say that it is not started:\n%s", out)
	}
	if out := inside("stat", "-c", "%a %U:%G", "/etc/rtcd/config.toml", "/var/lib/rtcd"); out != "640 root:rtcd\n700 rtcd:rtcd\n" {
		t.Errorf("modes: %q", out)
	}
	// As shipped it does not start with what is insecure: production wants a certificate and a key.
	if out, err := exec.Command("chroot", jail, "rtcd", "-config", "/etc/rtcd/config.toml").CombinedOutput(); err == nil {
		t.Errorf("starts as shipped:\n%s", out)
	}
	api := freePort(t)
	text := "# mine\n[store]\ndata_source = \"/var/lib/rtcd/data\"\n[logger]\nenable_file = false\n"
	if err := os.WriteFile(jail+"/etc/rtcd/config.toml", []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	start := func() {
		t.Helper()
		cmd := exec.Command("chroot", "--userspec=rtcd:rtcd", jail, "/usr/bin/rtcd", "-config", "/etc/rtcd/config.toml")
		cmd.Env = append(environ(api, freePort(t)), "PATH="+os.Getenv("PATH"))
		serves(t, api, cmd)
	}
	start()
	install("v1.3.1")
	if got, err := os.ReadFile(jail + "/etc/rtcd/config.toml"); err != nil || string(got) != text {
		t.Errorf("an upgrade changed the configuration: %q %v", got, err)
	}
	if out := inside("rtcd", "-version"); out != "v1.3.1\n" {
		t.Errorf("after the upgrade it is %q", out)
	}
	inside("dpkg", "-r", "rtcd")
	if _, err := os.Stat(jail + "/var/lib/rtcd/data"); err != nil {
		t.Errorf("removal took the state away: %v", err)
	}
	inside("dpkg", "-P", "rtcd")
	for _, path := range []string{"/var/lib/rtcd", "/etc/rtcd", "/usr/bin/rtcd"} {
		if _, err := os.Stat(jail + path); !os.IsNotExist(err) {
			t.Errorf("purge left %s: %v", path, err)
		}
	}
	if out := inside("sh", "-c", "getent passwd rtcd || true"); out != "" {
		t.Errorf("purge left the user: %s", out)
	}
}

func TestRPM(t *testing.T) {
	heavy(t)
	needs(t, "rpm")
	pkg := glob(t, packages(t, "v1.3.0")+"/*.rpm")
	list := run(t, nil, "rpm", "-qp", "--list", pkg)
	for _, path := range []string{"/usr/bin/rtcd", "/usr/lib/systemd/system/rtcd.service", "/etc/rtcd/config.toml", "/usr/share/man/man8/rtcd.8.gz"} {
		if !strings.Contains(list, path+"\n") {
			t.Errorf("no %s in\n%s", path, list)
		}
	}
	if conf := run(t, nil, "rpm", "-qp", "--configfiles", pkg); !strings.Contains(conf, "/etc/rtcd/config.toml") {
		t.Errorf("configuration files: %q", conf)
	}
	scripts := run(t, nil, "rpm", "-qp", "--scripts", pkg)
	for _, want := range []string{"postinstall scriptlet", "useradd --system", "preuninstall scriptlet"} {
		if !strings.Contains(scripts, want) {
			t.Errorf("no %q in the scripts", want)
		}
	}
}

// Every way to deploy the chart renders, and each manifest fits its kind.
func TestChart(t *testing.T) {
	heavy(t)
	needs(t, "helm")
	run(t, nil, "helm", "lint", "--strict", root+"/build/helm/rtcd")
	strict := filepath.Join(t.TempDir(), "strict")
	build := exec.Command("go", "build", "-o", strict, ".")
	build.Dir, build.Env = root+"/build/helm/strict", append(os.Environ(), "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the checker: %v\n%s", err, out)
	}
	for _, set := range []string{
		"media.mode=hostNetwork", "media.mode=hostPort,adminSecret=a,tlsSecret=b",
		"media.mode=nodePort,media.hostOverride=203.0.113.5,persistence.enabled=false",
	} {
		cmd := exec.Command(strict)
		cmd.Stdin = strings.NewReader(run(t, nil, "helm", "template", "r", root+"/build/helm/rtcd", "--set", set))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", set, err, out)
		}
	}
	if out, err := exec.Command("helm", "template", "r", root+"/build/helm/rtcd", "--set", "media.mode=nodePort").CombinedOutput(); err == nil {
		t.Errorf("renders without an address that end users reach:\n%.500s", out)
	}
}
