package shim

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"agentic-isolation/guest/internal/kernel"
)

const lastSignal = 64

// borne are what a workload may send to all that it can reach, and what by default would end a shim.
var borne = []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM}

// forsakeSignals gives nearly all signals their default actions. The runtime would reset each that it handles in every
// child before the program is loaded, by a system call each, and a child's end would interrupt whoever waits for it.
func forsakeSignals() {
	var forsaken []os.Signal
	for s := syscall.Signal(1); s <= lastSignal; s++ {
		if !slices.Contains(borne, s) {
			forsaken = append(forsaken, s)
		}
	}
	signal.Ignore(forsaken...) // the runtime lets go of what is ignored
	kernel.DefaultSignals()
}
