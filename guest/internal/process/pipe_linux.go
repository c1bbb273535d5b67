package process

import (
	"os"
	"syscall"
)

const (
	fSetPipeSize = 1031
	fGetPipeSize = 1032
	// outputPipe lets a command that writes much do so in few turns. Its memory is only taken while it is filled.
	outputPipe = 256 << 10
)

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
	if guestReads {
		// A user's pipes may not be enlarged without end; then they keep their size.
		_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[0]), fSetPipeSize, outputPipe)
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
