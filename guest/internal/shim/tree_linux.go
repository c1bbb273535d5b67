package shim

import (
	"os"
	"syscall"

	"agentic-isolation/guest/internal/proctree"
)

// signalTree signals every descendant of this shim. It reports whether they could be looked for: where not, it signals
// the process group.
func (c *command) signalTree(signal syscall.Signal) bool {
	all, err := proctree.Snapshot()
	if err != nil {
		c.signalGroup(signal)
		return false
	}
	for _, p := range proctree.Below(all, os.Getpid()) {
		if !p.Zombie() {
			_ = syscall.Kill(p.PID, signal)
		}
	}
	return true
}

// stopTree sends SIGSTOP until a pass finds nobody new. A tree of one is not worth a second pass.
func (c *command) stopTree() {
	stopped := map[int]bool{}
	for range stopPasses {
		all, err := proctree.Snapshot()
		if err != nil {
			return
		}
		tree := proctree.Below(all, os.Getpid())
		if len(tree) == 1 && len(stopped) == 0 {
			return
		}
		fresh := false
		for _, p := range tree {
			if !stopped[p.PID] && !p.Zombie() {
				stopped[p.PID], fresh = true, true
				_ = syscall.Kill(p.PID, syscall.SIGSTOP)
			}
		}
		if !fresh {
			return
		}
	}
}
