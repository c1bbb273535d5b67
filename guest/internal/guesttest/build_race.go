//go:build race

package guesttest

// The race detector needs cgo, with which the runtime cannot set an attribute on all threads.
const canDropPrivileges = false

var (
	buildFlags = []string{"-race"}
	buildEnv   = []string{"CGO_ENABLED=1"}
)
