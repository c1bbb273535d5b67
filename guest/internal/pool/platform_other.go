//go:build !linux

package pool

import (
	"os"
	"syscall"
)

func selfProgram() string {
	name, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return name
}

func socketPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(pair[0])
		syscall.CloseOnExec(pair[1])
	}
	return pair, err
}
