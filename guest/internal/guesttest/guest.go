// Package guesttest starts real guests for tests and speaks the protocol to them.
package guesttest

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Key is the secret of every test guest.
var Key = bytes.Repeat([]byte{7}, 32)

// Patience bounds every wait of a test.
const Patience = 20 * time.Second

// Guest is a guest process of a test.
type Guest struct {
	t      testing.TB
	Cmd    *exec.Cmd
	Socket string
	Root   string
	// Exited is closed when the process has been waited for.
	Exited chan struct{}
	stderr lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// binaryVariable names a guest that has been built already: for a user who cannot build, or another architecture.
const binaryVariable = "AGENTIC_TEST_GUEST"

var build = sync.OnceValues(func() (string, error) {
	if given := os.Getenv(binaryVariable); given != "" {
		return given, nil
	}
	dir, err := os.MkdirTemp("", "agentic-guest-test-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "agentic-guest")
	args := append([]string{"build"}, buildFlags...)
	cmd := exec.Command("go", append(args, "-o", binary, "agentic-isolation/guest")...)
	cmd.Env = append(os.Environ(), buildEnv...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &buildError{string(out), err}
	}
	return binary, nil
})

type buildError struct {
	output string
	err    error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.output }

// Binary builds the guest once per test process. RemoveBinary removes it.
func Binary(t testing.TB) string {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// RemoveBinary is for TestMain.
func RemoveBinary() {
	if binary, err := build(); err == nil && os.Getenv(binaryVariable) == "" {
		os.RemoveAll(filepath.Dir(binary))
	}
}

// Start starts a guest on a fresh root, with settings laid over the defaults, and ends it with the test.
func Start(t testing.TB, settings map[string]any, env ...string) *Guest {
	t.Helper()
	dir := t.TempDir()
	g := &Guest{t: t, Socket: filepath.Join(dir, "s"), Root: filepath.Join(dir, "root"), Exited: make(chan struct{})}
	if err := os.Mkdir(g.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]any{"socket": g.Socket, "root": g.Root}
	for k, v := range settings {
		all[k] = v
	}
	g.Socket, g.Root = all["socket"].(string), all["root"].(string)
	g.Cmd = exec.Command(Binary(t), "serve")
	g.Cmd.Env = append(Environment(t, all), env...)
	g.Cmd.Stderr = &g.stderr
	g.Cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := g.Cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.stop)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go func() {
		_ = g.Cmd.Wait()
		close(g.Exited)
	}()
	if line != "ready\n" {
		<-g.Exited
		t.Fatalf("the guest said %q (%v), not ready: %s", line, err, g.stderr.String())
	}
	return g
}

// Environment is that of a guest, with settings laid over the defaults. Socket and root have none.
func Environment(t testing.TB, settings map[string]any) []string {
	t.Helper()
	all := map[string]any{
		"workspace_id": "ws-test", "key": hex.EncodeToString(Key), "mount": "/workspace", "lease_ms": 120_000,
		"no_new_privileges": canDropPrivileges,
	}
	for k, v := range settings {
		all[k] = v
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "AGENTIC_GUEST_CONFIG=" + string(raw)}
}

// At is a guest that the test has not started by this package. The test ends it.
func At(t testing.TB, socket string) *Guest { return &Guest{t: t, Socket: socket} }

// PID is the guest's process id.
func (g *Guest) PID() int { return g.Cmd.Process.Pid }

// AwaitExit fails the test when the guest does not end, or not with 0.
func (g *Guest) AwaitExit() {
	g.t.Helper()
	select {
	case <-g.Exited:
	case <-time.After(Patience):
		g.t.Fatal("the guest does not end")
	}
	if code := g.Cmd.ProcessState.ExitCode(); code != 0 {
		g.t.Fatalf("the guest ended with %d: %s", code, g.stderr.String())
	}
}

func (g *Guest) stop() {
	_ = g.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.Exited:
	case <-time.After(Patience):
		_ = g.Cmd.Process.Kill()
		<-g.Exited
		g.t.Error("the guest did not end on SIGTERM")
	}
	if s := g.stderr.String(); strings.Contains(s, "panic") || strings.Contains(s, "DATA RACE") {
		g.t.Errorf("the guest complained:\n%s", s)
	}
}

// Proof computes a handshake proof.
func Proof(key []byte, role, guestNonce, serviceNonce string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(role + ":" + guestNonce + ":" + serviceNonce))
	return hex.EncodeToString(mac.Sum(nil))
}
