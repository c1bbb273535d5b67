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

// forsakeSignals does nothing here.
func forsakeSignals() {}

func closeOnExec(fds []int) {
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
}

func write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }

// awaitBriefly waits for nothing here.
func awaitBriefly(int, int) bool { return false }

func openProcess(int) (int, error) { return -1, syscall.ENOSYS }

func nanosleep(ts *syscall.Timespec) error {
	time.Sleep(time.Duration(ts.Nano()))
	return nil
}
