package shim

import (
	"syscall"
	"unsafe"
)

// The arguments of waitid(2), which package syscall does not name.
const (
	pAll    = 0
	wExited = 4
)

// awaitChild blocks until a child can be reaped. It leaves the child a zombie, so that its process id cannot be
// another's while a signal is on its way to it.
func awaitChild() error {
	var info [128]byte
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, uintptr(unsafe.Pointer(&info)), wExited|wNoWait, 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return errno
		}
	}
}
