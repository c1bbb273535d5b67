//go:build !linux

// Package kernel asks the operating system for the protections a guest needs and tells what it has.
package kernel

import (
	"os"
	"runtime"
)

// BecomeSubreaper does nothing: only Linux re-parents orphans to a process of our choice.
func BecomeSubreaper() error { return nil }

// ForbidTracing does nothing on this platform.
func ForbidTracing() error { return nil }

// DropNewPrivileges does nothing on this platform.
func DropNewPrivileges() error { return nil }

// RefuseRiskyCalls does nothing on this platform.
func RefuseRiskyCalls() error { return nil }

// ResourceLimits tells nothing on this platform.
func ResourceLimits() (openFiles, processes *int64) { return nil, nil }

// SizeBytes tells nothing on this platform.
func SizeBytes(string) (int64, bool) { return 0, false }

// UsedBytes tells nothing on this platform.
func UsedBytes(string) (int64, bool) { return 0, false }

// IsGVisor is false: gVisor says that it is Linux.
func IsGVisor() bool { return false }

// Describe tells what is known about the confinement of this process.
func Describe() Info {
	groups, _ := os.Getgroups()
	if groups == nil {
		groups = []int{}
	}
	return Info{UID: os.Getuid(), GID: os.Getgid(), Groups: groups, Kernel: runtime.GOOS}
}

// Victims says whom the kernel kills where memory is used up: on this platform nobody is asked.
type Victims struct{}

// RankBehind does nothing on this platform.
func RankBehind() *Victims { return &Victims{} }

// Before starts a process.
func (*Victims) Before(start func() (int, error)) (pid int, err error) { return start() }
