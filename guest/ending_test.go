//go:build linux

package main

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
)

func TestEndingIsAnnounced(t *testing.T) {
	t.Parallel()
	busy := map[string]any{"linger_ms": -1}
	for reason, test := range map[string]struct {
		settings map[string]any
		end      func(g *guesttest.Guest, c *guesttest.Client)
	}{
		"lease":    {map[string]any{"lease_ms": 1200}, nil},
		"lifetime": {map[string]any{"lifetime_ms": 1200}, nil},
		"shutdown": {nil, func(_ *guesttest.Guest, c *guesttest.Client) { c.Open("shutdown", nil) }},
		"signal":   {nil, func(g *guesttest.Guest, _ *guesttest.Client) { must(t, g.Cmd.Process.Signal(syscall.SIGTERM)) }},
	} {
		t.Run(reason, func(t *testing.T) {
			g := guesttest.Start(t, test.settings)
			c, other := g.Connect(), g.Connect()
			ch := c.Open("run", runOf(busy, "sleep", "60"))
			ch.AwaitEvent()
			if test.end != nil {
				test.end(g, c)
			}
			wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
			// It came before the result.
			if e := c.Announced(); e["event"] != "ending" || e["reason"] != reason {
				t.Error(e)
			}
			other.AwaitEnd()
			if e := other.Announced(); e["reason"] != reason {
				t.Error(e)
			}
			g.AwaitExit()
		})
	}
}

func TestLeaseEndsInTime(t *testing.T) {
	guesttest.Binary(t) // to build it takes longer than the lease
	start := time.Now()
	g := guesttest.Start(t, map[string]any{"lease_ms": 1000})
	c := g.Connect()
	eventually(t, "the lease ends", func() bool { return c.Announced() != nil })
	if took := time.Since(start); took < 950*time.Millisecond || took > 2*time.Second {
		t.Error(took)
	}
}

func TestIdleGuestEnds(t *testing.T) {
	t.Parallel()
	const idle = 500 * time.Millisecond
	g := guesttest.Start(t, map[string]any{"idle_ms": idle.Milliseconds()})
	c := g.Connect()
	upload := c.Open("write", map[string]any{"path": "f"})
	time.Sleep(2 * idle)
	c.Open("run", runOf(map[string]any{"linger_ms": -1}, "sleep", "1")).Close()
	upload.Close()
	start := time.Now()
	// Who only looks after a workspace does not use it.
	for idle := true; idle; {
		for op, members := range map[string]map[string]any{"ps": nil, "info": nil, "usage": nil, "lease": {"ttl_ms": 60_000}, "remember": {"record": "x"}} {
			o := c.Open(op, members)
			if f, ok := o.Next(); !ok || f.Type == frame.Error {
				idle = false
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if took := time.Since(start); took < time.Second+idle || took > 5*time.Second {
		t.Errorf("ended after %v", took)
	}
	c.AwaitEnd()
	if e := c.Announced(); e["reason"] != "idle" {
		t.Error(e)
	}
	g.AwaitExit()
}

func TestFrozenGuestIsNotChargedForIt(t *testing.T) {
	t.Parallel()
	g := guesttest.Start(t, map[string]any{"lease_ms": 1000, "idle_ms": 1000, "lifetime_ms": 30_000})
	c := g.Connect()
	must(t, g.Cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(2500 * time.Millisecond)
	must(t, g.Cmd.Process.Signal(syscall.SIGCONT))
	if o := c.Do("lease", map[string]any{"ttl_ms": 1000}); o.Err != nil || o.Result["lease_left_ms"] != 1000.0 {
		t.Fatal(o.Result, o.Err)
	}
	wantExit(t, c.Do("run", runOf(nil, "true")), 0, "exited")
	c.AwaitEnd()
	g.AwaitExit()
}

func TestGuestThatWindsUpCanBeConnectedTo(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	// Its result waits for credit, and the guest for a while for that.
	ch := c.Open("run", sh(nil, "head -c 600000 /dev/zero; touch over; sleep 60"))
	ch.Manual = true
	ch.AwaitEvent()
	eventually(t, "all is written", func() bool { return !gone(filepath.Join(g.Root, "over")) })
	down := c.Open("shutdown", nil)
	if o := down.Finish(); o.Err != nil {
		t.Fatal(o.Err)
	}
	late := g.Connect()
	wantFault(t, late.Do("info", nil), fault.ShuttingDown)
	if e := late.Announced(); e["reason"] != "shutdown" {
		t.Error(e)
	}
	if pid := peer(t, g.Raw()); pid != g.PID() {
		t.Errorf("process %d listens, not %d", pid, g.PID())
	}
	ch.Manual = false
	ch.Grant(600_000)
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	g.AwaitExit()
	if !gone(g.Socket) {
		t.Error("the socket is left")
	}
}

// peer is the process at the other end of a socket.
func peer(t *testing.T, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	must(t, err)
	var credentials *syscall.Ucred
	var failure error
	must(t, raw.Control(func(fd uintptr) {
		credentials, failure = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}))
	must(t, failure)
	return int(credentials.Pid)
}

// TestGuestOutlivesItsParent starts a guest by a process that is then killed, with the ends of both of its outputs.
func TestGuestOutlivesItsParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	parent := exec.Command("sh", "-c", `"$0" serve & wait`, guesttest.Binary(t))
	parent.Env = guesttest.Environment(t, map[string]any{"socket": socket, "root": dir})
	stdout, err := parent.StdoutPipe()
	must(t, err)
	stderr, err := parent.StderrPipe()
	must(t, err)
	must(t, parent.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	if line != "ready\n" {
		t.Fatal(line)
	}
	must(t, parent.Process.Kill())
	_ = stdout.Close()
	_ = stderr.Close()
	_ = parent.Wait()

	g := guesttest.At(t, socket)
	pid := peer(t, g.Raw())
	t.Cleanup(func() {
		if t.Failed() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	c := g.Connect()
	// It has something to complain of.
	broken := g.Connect()
	_, _ = broken.Conn.Write(frame.Append(nil, frame.Result, 1, []byte("{}")))
	broken.AwaitEnd()
	wantExit(t, c.Do("run", sh(nil, "echo x; echo y >&2")), 0, "exited")
	if o := c.Do("shutdown", nil); o.Err != nil {
		t.Fatal(o.Err)
	}
	eventually(t, "the guest ends", func() bool { return !alive(pid) && gone(socket) })
}

// The service sends an upload's content without waiting for the guest's word: that it comes too late is no offence.
func TestContentThatCrossesARefusal(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	late := c.Open("write", map[string]any{"path": "late"}) // the guest waits for it a while before it ends
	late.Send([]byte("x"))
	c.Open("shutdown", nil)
	eventually(t, "the guest ends", func() bool { return c.Announced() != nil })
	for id := uint32(1000); id < 1010; id++ {
		c.Expect(id)
		upload := frame.Append(nil, frame.Open, id, []byte(`{"op":"write","path":"f","digest":true}`))
		upload = frame.Append(upload, frame.Data, id, []byte("content"))
		upload = frame.Append(upload, frame.End, id, []byte(`{"bytes":7}`))
		_, err := c.Conn.Write(upload)
		must(t, err)
	}
	c.Ping("still here")
	late.End()
	if o := late.Finish(); o.Err != nil {
		t.Error(o.Err)
	}
	g.AwaitExit()
}
