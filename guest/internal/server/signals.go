package server

import (
	"os"
	"os/signal"
	"syscall"

	"agentic-isolation/guest/internal/kernel"
)

// endingSignals returns a channel of the signals upon which the guest is to end.
//
// As PID 1 there are none: whoever is outside can end the whole place by SIGKILL, and a signal that can be told apart
// from it comes from inside, from a workload that shares the guest's user.
func endingSignals() <-chan os.Signal {
	asked := make(chan os.Signal, 1)
	// Handled and dropped, not ignored by signal.Ignore, which commands would inherit.
	dropped := make(chan os.Signal, 1)
	if os.Getpid() == 1 {
		signal.Notify(dropped)
		kernel.IgnoreRest() // shims give their commands the default actions again
		return asked
	}
	signal.Notify(dropped, syscall.SIGPIPE, syscall.SIGHUP)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	return asked
}
