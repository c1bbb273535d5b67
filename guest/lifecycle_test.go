//go:build linux

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
)

func gone(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

func TestLeaseExpiryLeavesNothing(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	sweep := filepath.Join(shared, "dir")
	cleanup := filepath.Join(sweep, "w", "one")
	must(t, os.MkdirAll(filepath.Join(cleanup, "root"), 0o755))
	g := guesttest.Start(t, map[string]any{
		"lease_ms": 1500, "root": filepath.Join(cleanup, "root"), "socket": filepath.Join(cleanup, "s"),
		"cleanup": cleanup, "sweep": sweep,
	})
	c := g.Connect()
	wantExit(t, c.Do("run", sh(nil, "mkdir -p locked/deep; touch locked/deep/f; chmod 0 locked/deep locked")), 0, "exited")
	ch := c.Open("run", sh(map[string]any{"linger_ms": -1}, daemon+"sleep 60"))
	pid := daemonPID(t, g)
	start := time.Now()
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	c.AwaitEnd()
	g.AwaitExit()
	if time.Since(start) > 10*time.Second {
		t.Error("late")
	}
	if alive(pid) || !gone(sweep) {
		t.Fatal("something is left")
	}
}

func TestSweepSparesWhatIsInUse(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"locked": func(t *testing.T, dir string) {
			f, err := os.Create(filepath.Join(dir, "lock"))
			must(t, err)
			must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_SH))
			t.Cleanup(func() { f.Close() })
		},
		"another workspace": func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "w", "two"), 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			must(t, os.MkdirAll(filepath.Join(dir, "w", "one"), 0o755))
			prepare(t, dir)
			g := guesttest.Start(t, map[string]any{"cleanup": filepath.Join(dir, "w", "one"), "sweep": dir})
			g.Connect().Do("shutdown", nil)
			g.AwaitExit()
			if !gone(filepath.Join(dir, "w", "one")) || gone(filepath.Join(dir, "w")) {
				t.Fatal("cleanup is left, or sweep took too much")
			}
		})
	}
}

func TestLeaseIsRenewed(t *testing.T) {
	g := guesttest.Start(t, map[string]any{"lease_ms": 400})
	c := g.Connect()
	for range 5 {
		if o := c.Do("lease", map[string]any{"ttl_ms": 400}); o.Err != nil {
			t.Fatal(o.Err)
		}
		time.Sleep(150 * time.Millisecond)
	}
	// Nothing but a renewal counts.
	for {
		select {
		case <-g.Exited:
			return
		case <-time.After(50 * time.Millisecond):
			_, _ = c.Conn.Write(frame.Append(nil, frame.Ping, 0, nil))
		}
	}
}

func TestShutdown(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", runOf(nil, "sleep", "60"))
	ch.AwaitEvent()
	down := c.Open("shutdown", nil)
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	if o := down.Finish(); o.Err != nil {
		t.Fatal(o.Err)
	}
	c.AwaitEnd()
	g.AwaitExit()
	if !gone(g.Socket) {
		t.Error("the socket is left")
	}
}

func TestSigtermAndIgnoredSignals(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	must(t, g.Cmd.Process.Signal(syscall.SIGHUP))
	must(t, g.Cmd.Process.Signal(syscall.SIGPIPE))
	ch := c.Open("run", runOf(nil, "sleep", "60"))
	ch.AwaitEvent()
	must(t, g.Cmd.Process.Signal(syscall.SIGTERM))
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	g.AwaitExit()
}

func TestAbstractSocket(t *testing.T) {
	g := guesttest.Start(t, map[string]any{"socket": "@agentic-test-" + filepath.Base(t.TempDir()) + t.Name()})
	g.Connect().Ping("abstract")
}

func TestBridge(t *testing.T) {
	g := guesttest.Start(t, nil)
	cmd := exec.Command(guesttest.Binary(t), "bridge", g.Socket)
	ours, theirs := net.Pipe()
	cmd.Stdin, cmd.Stdout = theirs, theirs
	must(t, cmd.Start())
	nonce, _ := helloOf(t, ours)
	if len(nonce) != 32 {
		t.Fatal(nonce)
	}
	must(t, ours.Close())
	_ = theirs.Close()
	_ = cmd.Wait()
	g.Connect().Ping("on")
}

// Under gVisor a workload can stop its guest, and each bridge that the service has given up would stay.
func TestBridgeEndsWithItsServiceThoughTheGuestIsStopped(t *testing.T) {
	g := guesttest.Start(t, nil)
	must(t, g.Cmd.Process.Signal(syscall.SIGSTOP))
	defer func() { _ = g.Cmd.Process.Signal(syscall.SIGCONT) }()
	cmd := exec.Command(guesttest.Binary(t), "bridge", g.Socket)
	service, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, service.Close())
	late := time.AfterFunc(guesttest.Patience, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !late.Stop() {
		t.Error("the bridge waits for a guest that is stopped")
	}
}

func TestRefusedSettings(t *testing.T) {
	for _, settings := range []string{
		``, `5`, `{}`, `{"workspace_id":"w","key":"00","socket":"/tmp/s","lease_ms":5}`,
		`{"workspace_id":"w","key":"` + strings.Repeat("00", 32) + `","socket":"/tmp/s","lease_ms":0}`,
		`{"workspace_id":"w","key":"` + strings.Repeat("00", 32) + `","socket":"/tmp/s","lease_ms":5,"root":"/no/such/dir"}`,
	} {
		cmd := exec.Command(guesttest.Binary(t), "serve")
		cmd.Env = []string{"AGENTIC_GUEST_CONFIG=" + settings}
		out, err := cmd.CombinedOutput()
		if err == nil || len(out) == 0 || bytes.Contains(out, []byte("0000")) || bytes.Contains(out, []byte("ready")) {
			t.Errorf("%s: %v %s", settings, err, out)
		}
	}
}

func TestGuestCannotBeRead(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(nil, "echo $PPID; sleep 60"))
	ch.AwaitEvent()
	ch.AwaitOutput(2)
	shims, _ := tree(t, g)
	for _, pid := range append(shims, g.PID()) {
		var stat syscall.Stat_t
		must(t, syscall.Stat("/proc/"+strconv.Itoa(pid)+"/environ", &stat))
		if os.Geteuid() == 0 {
			t.Skip("root may read everything")
		}
		if stat.Uid != 0 {
			t.Errorf("process %d can be read by user %d", pid, stat.Uid)
		}
	}
}

func TestInfo(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	o := c.Do("info", nil)
	if o.Result["uid"] != float64(os.Getuid()) || o.Result["no_new_privs"] != noNewPrivileges || o.Result["kernel"] == "" {
		t.Fatalf("%v", o.Result)
	}
	for _, member := range []string{"gid", "groups", "capabilities", "seccomp", "root_read_only"} {
		if _, ok := o.Result[member]; !ok {
			t.Errorf("no %s in %v", member, o.Result)
		}
	}
}

func TestNothingPilesUp(t *testing.T) {
	g := guesttest.Start(t, nil)
	round := func() {
		c := g.Connect()
		for range 20 {
			c.Do("run", sh(map[string]any{"stdin": true}, "echo x"))
			c.Do("run", runOf(nil, "no-such-program"))
			c.Do("list", map[string]any{"path": "."})
		}
		c.Open("run", runOf(map[string]any{"stdin": true}, "sleep", "60")).AwaitEvent()
		c.Open("write", map[string]any{"path": "f"}).Send([]byte("x"))
		c.Conn.Close()
		awaitOnly(t, g, 4)
	}
	round()
	before := descriptors(t, g.PID())
	for range 5 {
		round()
	}
	eventually(t, "no descriptor piles up", func() bool { return descriptors(t, g.PID()) <= before+2 })
}
