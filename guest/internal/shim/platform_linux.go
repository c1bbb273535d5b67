package shim

import "syscall"

const (
	recvFlags = syscall.MSG_CMSG_CLOEXEC
	wNoWait   = 0x01000000
	// peakScale turns the kernel's unit of the largest resident set into bytes.
	peakScale = 1024
)

// closeOnExec has nothing to do: recvFlags has said so.
func closeOnExec([]int) {}

// write raises no SIGPIPE.
func write(fd int, b []byte) (int, error) {
	return syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_NOSIGNAL)
}

func nanosleep(ts *syscall.Timespec) error { return syscall.Nanosleep(ts, nil) }
