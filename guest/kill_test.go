//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

// daemon is a grandchild that has left session and parent, ignores what can be ignored, and has no environment.
const daemon = `setsid sh -c 'trap "" TERM HUP INT; (env -i sh -c "trap \"\" TERM HUP INT; echo \$\$ > daemon.tmp; mv daemon.tmp daemon; while :; do sleep 1; done" >/dev/null 2>&1 </dev/null &) ' & wait; `

func daemonPID(t *testing.T, g *guesttest.Guest) int {
	t.Helper()
	var pid int
	eventually(t, "the daemon runs", func() bool {
		raw, err := os.ReadFile(filepath.Join(g.Root, "daemon"))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	})
	return pid
}

func TestTimeoutTakesTheWholeTree(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(map[string]any{"timeout_ms": 700}, daemon+"echo before; sleep 60"))
	pid := daemonPID(t, g)
	o := ch.Finish()
	wantSignal(t, o, syscall.SIGKILL, "timeout")
	if string(o.Stdout) != "before\n" || o.Result["survivors"] != 0.0 {
		t.Fatalf("%q %v", o.Stdout, o.Result)
	}
	if alive(pid) {
		t.Fatal("the daemon lives")
	}
	awaitOnly(t, g, 4)
}

func TestKillWithGrace(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(map[string]any{"process_id": "polite", "kill_grace_ms": 20_000},
		`trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done`))
	ch.AwaitEvent()
	ch.AwaitOutput(6)
	if o := c.Do("kill", map[string]any{"process_id": "polite"}); o.Result["survivors"] != 0.0 {
		t.Fatalf("%v %v", o.Result, o.Err)
	}
	o := ch.Finish()
	wantExit(t, o, 3, "killed")
	if string(o.Stdout) != "bye\n" {
		t.Fatalf("%q", o.Stdout)
	}

	start := time.Now()
	ch = c.Open("run", sh(map[string]any{"process_id": "stubborn", "kill_grace_ms": 300}, daemon+"sleep 60"))
	ch.AwaitEvent()
	pid := daemonPID(t, g)
	if o := c.Do("kill", map[string]any{"process_id": "stubborn"}); o.Err != nil {
		t.Fatal(o.Err)
	}
	o = ch.Finish()
	wantSignal(t, o, syscall.SIGTERM, "killed")
	if time.Since(start) < 300*time.Millisecond {
		t.Error("no grace")
	}
	if alive(pid) || o.Result["survivors"] != 0.0 {
		t.Fatal("the daemon lives")
	}
}

func TestSecondKillIsNotHeldBackByTheGraceOfTheFirst(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(map[string]any{"process_id": "p", "kill_grace_ms": 60_000}, `trap '' TERM; echo x; while :; do sleep 0.1; done`))
	ch.AwaitEvent()
	ch.AwaitOutput(2)
	kill := c.Open("kill", map[string]any{"process_id": "p"})
	if o := c.Do("signal", map[string]any{"process_id": "p", "signal": 9, "tree": true}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	if o := kill.Finish(); o.Result["survivors"] != 0.0 {
		t.Fatal(o.Result, o.Err)
	}
}

func TestSignal(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(map[string]any{"process_id": "p"}, `trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done`))
	ch.AwaitEvent()
	ch.AwaitOutput(6)
	for range 3 {
		if o := c.Do("signal", map[string]any{"process_id": "p", "signal": int(syscall.SIGUSR1)}); o.Err != nil {
			t.Fatal(o.Err)
		}
		if o := ch.AwaitOutput(5); string(o.Stdout) != "usr1\n" {
			t.Fatalf("%q", o.Stdout)
		}
	}
	wantFault(t, c.Do("signal", map[string]any{"process_id": "p", "signal": 0}), fault.BadRequest)
	wantFault(t, c.Do("signal", map[string]any{"process_id": "q", "signal": 9}), fault.ProcessNotFound)
	wantFault(t, c.Do("kill", map[string]any{"process_id": "q"}), fault.ProcessNotFound)
	if o := c.Do("signal", map[string]any{"process_id": "p", "signal": int(syscall.SIGTERM)}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantSignal(t, ch.Finish(), syscall.SIGTERM, "signaled")

	ch = c.Open("run", runOf(map[string]any{"process_id": "p"}, "sleep", "60"))
	ch.AwaitEvent()
	c.Do("signal", map[string]any{"process_id": "p", "signal": int(syscall.SIGTERM), "tree": true})
	wantSignal(t, ch.Finish(), syscall.SIGTERM, "killed")
}

func TestCloseKills(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(nil, daemon+"sleep 60"))
	pid := daemonPID(t, g)
	ch.Close()
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	if alive(pid) {
		t.Fatal("the daemon lives")
	}
	awaitOnly(t, g, 4)
}

func TestLosingTheLinkKills(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	c.Open("run", sh(nil, daemon+"sleep 60"))
	pid := daemonPID(t, g)
	c.Conn.Close()
	eventually(t, "the daemon ends", func() bool { return !alive(pid) })
	awaitOnly(t, g, 4)
}

func TestSurvivorsEndWithTheGuest(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	o := c.Do("run", sh(nil, daemon+"while [ ! -e daemon ]; do sleep 0.01; done"))
	wantExit(t, o, 0, "exited")
	if o.Result["survivors"].(float64) < 1 {
		t.Fatalf("%v", o.Result)
	}
	pid := daemonPID(t, g)
	if !alive(pid) {
		t.Fatal("the daemon has ended")
	}
	if o := c.Do("shutdown", nil); o.Err != nil {
		t.Fatal(o.Err)
	}
	if alive(pid) {
		t.Fatal("the daemon lives")
	}
	c.AwaitEnd()
	g.AwaitExit()
}

func TestKilledShim(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(nil, daemon+"echo $PPID; sleep 60"))
	ch.AwaitEvent()
	o := ch.AwaitOutput(3)
	pid := daemonPID(t, g)
	shim, err := strconv.Atoi(strings.TrimSpace(string(o.Stdout)))
	must(t, err)
	must(t, syscall.Kill(shim, syscall.SIGKILL))
	o = ch.Finish()
	wantSignal(t, o, syscall.SIGKILL, "killed")
	if runs(t, pid) || o.Result["survivors"] != 0.0 {
		t.Fatalf("the daemon lives: %v", o.Result)
	}
	eventually(t, "the daemon is reaped", func() bool { return !alive(pid) })
	wantExit(t, c.Do("run", runOf(nil, "true")), 0, "exited")
	awaitOnly(t, g, 4)
}

func TestIdleShimsThatAreKilledAreReplaced(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	for range 5 {
		shims, _ := tree(t, g)
		for _, pid := range shims {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		// A request may reach a shim in the moment of its death; it is never run twice.
		if o := c.Do("run", runOf(nil, "true")); o.Err != nil && o.Err.Reason != fault.StartFailed {
			t.Fatal(o.Err)
		}
	}
	eventually(t, "a command runs again", func() bool { return c.Do("run", runOf(nil, "true")).Err == nil })
}

func TestStoppedShim(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(map[string]any{"process_id": "p"}, "echo $PPID; sleep 60"))
	ch.AwaitEvent()
	o := ch.AwaitOutput(3)
	shim, err := strconv.Atoi(strings.TrimSpace(string(o.Stdout)))
	must(t, err)
	must(t, syscall.Kill(shim, syscall.SIGSTOP))
	c.Do("kill", map[string]any{"process_id": "p"})
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
}

func TestForkBomb(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	// Every process is gone before a snapshot that shows it can be acted upon; four chains at once.
	ch := c.Open("run", sh(map[string]any{"timeout_ms": 500}, `
cat > hop <<'EOF'
#!/bin/sh
setsid ./hop >/dev/null 2>&1 </dev/null &
EOF
chmod +x hop; for i in 1 2 3 4; do ./hop; done; sleep 60`))
	o := ch.Finish()
	wantSignal(t, o, syscall.SIGKILL, "timeout")
	if o.Result["survivors"] != 0.0 {
		t.Fatalf("%v", o.Result)
	}
	awaitOnly(t, g, 4)
}

func TestGuestThatIsKilledTakesItsTreesAlong(t *testing.T) {
	t.Parallel()
	g := guesttest.Start(t, nil)
	c := g.Connect()
	c.Open("run", sh(nil, daemon+"sleep 60"))
	pid := daemonPID(t, g)
	shims, _ := tree(t, g)
	must(t, g.Cmd.Process.Kill())
	eventually(t, "the daemon ends", func() bool { return !alive(pid) })
	for _, shim := range shims {
		eventually(t, "the shim ends", func() bool { return !alive(shim) })
	}
}
