//go:build !race

package guesttest

const canDropPrivileges = true

var (
	buildFlags []string
	buildEnv   = []string{"CGO_ENABLED=0"}
)
