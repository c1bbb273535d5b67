package shim

import (
	"syscall"
	"time"
	"unsafe"
)

// brief is how long a shim waits without letting its runtime know. Whatever blocks by the runtime's leave wakes its
// monitor, which then looks every 20 µs whether it is back: more than half of the switches of a short command here. Nothing
// else can run meanwhile, and the runtime itself leaves nobody alone for longer than 10 ms.
const brief = 5 * time.Millisecond

const (
	sysPidfdOpen = 434
	pollIn       = 1
)

type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

// awaitBriefly waits until there is something to read from a descriptor, or from another one (-1: none). It returns
// whether it was the first one.
func awaitBriefly(first, second int) bool {
	fds := [...]pollFd{{fd: int32(first), events: pollIn}, {fd: int32(second), events: pollIn}}
	limit := syscall.NsecToTimespec(brief.Nanoseconds())
	n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL,
		uintptr(unsafe.Pointer(&fds)), uintptr(len(fds)), uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return errno == 0 && n > 0 && fds[0].revents != 0
}

// openProcess returns a descriptor that can be read from once the process has ended.
func openProcess(pid int) (int, error) {
	fd, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
