//go:build !linux

package process

import (
	"os"
	"syscall"
)

// newPipe makes a pipe whose end for the guest is waited for by the runtime's poller, and whose other end blocks.
func newPipe(guestReads bool) (ours, theirs *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	ours, theirs = r, w
	if !guestReads {
		ours, theirs = w, r
	}
	if err := syscall.SetNonblock(int(theirs.Fd()), false); err != nil {
		r.Close()
		w.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// pipeCapacity is how many bytes can be in the pipe at most.
func pipeCapacity(syscall.RawConn) int { return 64 << 10 }
