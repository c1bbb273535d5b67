//go:build !linux

package process

import (
	"os"
	"syscall"
)

// newPipe makes a pipe whose end for the guest is waited for by the runtime's poller, and whose other end, a bare
// descriptor, blocks.
func newPipe(guestReads bool) (ours *os.File, theirs int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, -1, err
	}
	ours, other := r, w
	if !guestReads {
		ours, other = w, r
	}
	defer other.Close()
	if theirs, err = duplicateFD(other); err == nil {
		err = syscall.SetNonblock(theirs, false)
	}
	if err != nil {
		ours.Close()
		closeFD(theirs)
		return nil, -1, err
	}
	return ours, theirs, nil
}

// pipeCapacity is how many bytes can be in the pipe at most.
func pipeCapacity(syscall.RawConn) int { return 64 << 10 }
