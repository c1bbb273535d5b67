//go:build !linux

package shim

import (
	"syscall"
	"time"
)

const (
	recvFlags = 0
	wNoWait   = 0x20
	peakScale = 1
)

func nanosleep(ts *syscall.Timespec) error {
	time.Sleep(time.Duration(ts.Nano()))
	return nil
}
