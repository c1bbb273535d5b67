package process

import (
	"os"
	"syscall"
)

const fGetPipeSize = 1032

// newPipe makes a pipe whose end for the guest is waited for by the runtime's poller, and whose other end blocks.
func newPipe(guestReads bool) (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	if !guestReads {
		fds[0], fds[1] = fds[1], fds[0]
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "|guest"), os.NewFile(uintptr(fds[1]), "|command"), nil
}

// pipeCapacity is how many bytes can be in the pipe at most.
func pipeCapacity(raw syscall.RawConn) int {
	size := 0
	_ = raw.Control(func(fd uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, fGetPipeSize, 0)
		if errno == 0 {
			size = int(n)
		}
	})
	return max(size, 64<<10)
}
