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
	// terminalCapacity is more than the kernel keeps of what is printed in a terminal.
	terminalCapacity = 1 << 20
)

// newPipe makes a pipe whose end for the guest is waited for by the runtime's poller, and whose other end, a bare
// descriptor, blocks.
func newPipe(guestReads bool) (ours *os.File, theirs int, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	access := syscall.O_RDONLY
	if !guestReads {
		access = syscall.O_WRONLY
		fds[0], fds[1] = fds[1], fds[0]
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[0]), syscall.F_SETFL, uintptr(access|syscall.O_NONBLOCK)); errno != 0 {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, -1, errno
	}
	if guestReads {
		// A user's pipes may not be enlarged without end; then they keep their size.
		_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[0]), fSetPipeSize, outputPipe)
	}
	if ours, err = newFile(fds[0], "|guest"); err != nil {
		syscall.Close(fds[1])
		return nil, -1, err
	}
	return ours, fds[1], nil
}

// pipeCapacity is how many bytes can be in the pipe at most, or in a terminal, which does not tell.
func pipeCapacity(raw syscall.RawConn) int {
	size := terminalCapacity
	_ = raw.Control(func(fd uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, fGetPipeSize, 0)
		if errno == 0 {
			size = int(n)
		}
	})
	return size
}
