package main

import (
	"os"
	"strconv"
	"testing"

	"agentic-isolation/guest/internal/guesttest"
)

// maxShimThreads is what a shim may cost; providers add it to the limit of processes for each command.
const maxShimThreads = 7

// TestFootprint logs what a guest and its shims cost, and bounds it: every thread counts against the workspace's
// limit of processes.
func TestFootprint(t *testing.T) {
	if !noNewPrivileges {
		t.Skip("the race detector has threads and memory of its own")
	}
	g := guesttest.Start(t, nil)
	c := g.Connect()
	for range 50 {
		c.Do("run", runOf(nil, "/bin/true"))
	}
	for range 20 {
		c.Do("run", sh(map[string]any{"timeout_ms": 30, "kill_grace_ms": 10}, "trap '' TERM; sleep 60 & sleep 60"))
	}
	c.Open("run", runOf(nil, "sleep", "60")).AwaitEvent()
	threads := func(pid int) int {
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		must(t, err)
		return len(tasks)
	}
	t.Logf("guest: %d threads, %d kB (%d kB private)", threads(g.PID()), status(t, g.PID(), "VmRSS"), status(t, g.PID(), "RssAnon"))
	shims, _ := tree(t, g)
	for _, pid := range shims {
		n := threads(pid)
		t.Logf("shim: %d threads, %d kB (%d kB private)", n, status(t, pid, "VmRSS"), status(t, pid, "RssAnon"))
		if n > maxShimThreads {
			t.Errorf("a shim has %d threads", n)
		}
	}
}
