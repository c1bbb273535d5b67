package shim

import "syscall"

const (
	recvFlags = syscall.MSG_CMSG_CLOEXEC
	wNoWait   = 0x01000000
	// peakScale turns the kernel's unit of the largest resident set into bytes.
	peakScale = 1024
)

func nanosleep(ts *syscall.Timespec) error { return syscall.Nanosleep(ts, nil) }
