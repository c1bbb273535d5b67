package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"agentic-isolation/guest/internal/guesttest"
)

const rlimitProcesses = 6

// A workload that takes every process there may be must not take the guest with it.
func TestForkBombAtTheLimitOfProcesses(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("the limit does not hold for root")
	}
	g := guesttest.Start(t, nil)
	c := g.Connect()
	wantExit(t, c.Do("run", runOf(nil, "true")), 0, "exited")
	limit := syscall.Rlimit{Cur: 120, Max: 120}
	shims, _ := tree(t, g)
	for _, pid := range append(shims, g.PID()) {
		_, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(pid), rlimitProcesses, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		if errno != 0 {
			t.Skip("the limit cannot be set: ", errno)
		}
	}
	for range 3 {
		ch := c.Open("run", sh(map[string]any{"timeout_ms": 1000}, `bomb() { bomb & bomb & wait; }; bomb 2>/dev/null; sleep 60`))
		ch.AwaitEvent()
		c.Ping("during")
		o := ch.Finish()
		if o.Err != nil || o.Result["survivors"] != 0.0 || o.Result["cause"] != "timeout" {
			t.Fatalf("%v %v", o.Result, o.Err)
		}
	}
	wantExit(t, c.Do("run", runOf(nil, "true")), 0, "exited")
	awaitOnly(t, g, 4)
}

// Where memory is used up the kernel kills commands first, then what supervises them, and the guest last.
func TestCommandsAreKilledBeforeTheGuest(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	for range 2 {
		o := c.Do("run", runOf(nil, "cat", "/proc/self/oom_score_adj"))
		if got := string(o.Stdout); got != "1000\n" {
			t.Errorf("a command is rated %q", got)
		}
	}
	shims, _ := tree(t, g)
	if len(shims) == 0 {
		t.Fatal("there is no shim")
	}
	for _, pid := range shims {
		if rated, least := rating(t, pid), rating(t, g.PID()); rated <= least || rated >= 1000 {
			t.Errorf("a shim is rated %d, and the guest %d", rated, least)
		}
	}
}

func rating(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	must(t, err)
	rated, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, err)
	return rated
}

// limitFiles bounds how many files a process may have open, and returns what undoes that.
func limitFiles(t *testing.T, pid int, most uint64) (undo func()) {
	t.Helper()
	var before syscall.Rlimit
	set := func(limit, old *syscall.Rlimit) {
		_, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_NOFILE,
			uintptr(unsafe.Pointer(limit)), uintptr(unsafe.Pointer(old)), 0, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	set(nil, &before)
	set(&syscall.Rlimit{Cur: most, Max: before.Max}, nil)
	return func() { set(&before, nil) }
}

// A workload that opens sockets to the guest leaves descriptors for everybody else, however few there are.
func TestStrangersLeaveDescriptors(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	limitFiles(t, g.PID(), 64)
	for range 300 {
		g.Raw()
	}
	wantExit(t, c.Do("run", sh(nil, "echo x")), 0, "exited")
	g.Connect().Ping("in")
}

// orphaned takes all descriptors from a guest, and the shim from a command of it that has a daemon. It returns the
// command's channel, the daemon, and what gives the guest its descriptors back.
func orphaned(t *testing.T, g *guesttest.Guest) (ch *guesttest.Channel, pid int, undo func()) {
	t.Helper()
	ch = g.Connect().Open("run", sh(nil, daemon+"sleep 60"))
	ch.AwaitEvent()
	pid = daemonPID(t, g)
	undo = limitFiles(t, g.PID(), 3)
	shims, _ := tree(t, g)
	for _, shim := range shims {
		must(t, syscall.Kill(shim, syscall.SIGKILL))
	}
	return ch, pid, undo
}

// What a shim that was killed has left is found and killed as soon as there are descriptors again.
func TestOrphansOfATimeWithoutDescriptors(t *testing.T) {
	g := guesttest.Start(t, nil)
	ch, pid, undo := orphaned(t, g)
	eventually(t, "the shims are reaped", func() bool {
		left, _ := tree(t, g)
		return len(left) == 0
	})
	time.Sleep(100 * time.Millisecond)
	undo()
	o := ch.Finish()
	wantSignal(t, o, syscall.SIGKILL, "killed")
	if runs(t, pid) || o.Result["survivors"] != 0.0 {
		t.Errorf("the daemon runs: %v; the guest says %v", runs(t, pid), o.Result)
	}
	eventually(t, "the daemon is reaped", func() bool { return !alive(pid) })
}

// What a shim that was killed has left is told of where it cannot be looked at for as long as is waited for that.
func TestOrphansThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	g := guesttest.Start(t, nil)
	ch, pid, undo := orphaned(t, g)
	o := ch.Finish()
	if !runs(t, pid) {
		t.Fatal("the daemon was found")
	}
	if wantSignal(t, o, syscall.SIGKILL, "killed"); o.Result["survivors"] != 1.0 {
		t.Errorf("the guest says %v", o.Result)
	}
	undo()
}

// The first command of a guest may find no descriptor for its input. The next one does.
func TestCommandsAfterDescriptorsHaveRunOut(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	refused := 0
	for extra := range 8 {
		undo := limitFiles(t, g.PID(), uint64(descriptors(t, g.PID())+extra))
		if o := c.Do("run", runOf(nil, "true")); o.Err != nil {
			refused++
		}
		undo()
	}
	if refused == 0 {
		t.Error("there were descriptors enough")
	}
	wantExit(t, c.Do("run", runOf(nil, "true")), 0, "exited")
}
