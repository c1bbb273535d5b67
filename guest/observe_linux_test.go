package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"agentic-isolation/guest/internal/guesttest"
	"agentic-isolation/guest/internal/proctree"
)

// eventually retries until ok; for states that nothing tells about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(guesttest.Patience); !ok(); {
		if time.Now().After(limit) {
			t.Fatal("never: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Skip("the descriptors of a process that cannot be traced are for root to see")
	}
	return len(entries)
}

// tree is the living descendants of a guest; commands tells its shims apart.
func tree(t *testing.T, g *guesttest.Guest) (shims, commands []int) {
	t.Helper()
	all, err := proctree.Snapshot()
	must(t, err)
	for _, p := range proctree.Below(all, g.PID()) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		switch {
		case p.Zombie():
		case strings.HasPrefix(string(line), "agentic-guest\x00shim"):
			shims = append(shims, p.PID)
		default:
			commands = append(commands, p.PID)
		}
	}
	return shims, commands
}

// awaitOnly waits until nothing but at most n idle shims is left.
func awaitOnly(t *testing.T, g *guesttest.Guest, n int) {
	t.Helper()
	eventually(t, "only idle shims are left", func() bool {
		shims, commands := tree(t, g)
		return len(shims) <= n && len(commands) == 0
	})
}

// runs reports whether a process has not ended; alive, whether it has not been reaped.
func runs(t *testing.T, pid int) bool {
	t.Helper()
	all, err := proctree.Snapshot()
	must(t, err)
	for _, p := range all {
		if p.PID == pid {
			return !p.Zombie()
		}
	}
	return false
}

func alive(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

func status(t *testing.T, pid int, field string) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for _, line := range strings.Split(string(raw), "\n") {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

func peakResident(t *testing.T, pid int) int { return status(t, pid, "VmHWM") << 10 }
