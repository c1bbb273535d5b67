package pool

import "syscall"

// selfProgram is the running program itself, whatever has become of the file it was started from.
func selfProgram() string { return "/proc/self/exe" }

func socketPair() ([2]int, error) {
	return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
}
