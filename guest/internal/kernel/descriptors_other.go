//go:build !linux

package kernel

import "syscall"

const plausibleDescriptors = 256

// SealDescriptors keeps what this process has inherited beyond standard input, output and error from its children.
func SealDescriptors() {
	for fd := 3; fd < plausibleDescriptors; fd++ {
		syscall.CloseOnExec(fd)
	}
}
