package kernel

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// Of seccomp(2); package syscall has only the instructions.
const (
	setModeFilter = 1
	syncThreads   = 1
	allow         = 0x7fff0000
	refuse        = 0x00050000 | uint32(syscall.EPERM)
	offsetNumber  = 0
	offsetFirst   = 16

	load    = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS
	and     = syscall.BPF_ALU | syscall.BPF_AND | syscall.BPF_K
	ifEqual = syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K
	answer  = syscall.BPF_RET | syscall.BPF_K

	ioUringSetup    = 425 // this and the next two are the same on every architecture
	ioUringEnter    = 426
	ioUringRegister = 427
	socket32        = 359 // of 32-bit programs on amd64
	familyVsock     = 40
	x32             = 0x40000000 // marks the numbers of the x32 interface
)

// refusals is the filter (seccomp(2), bpf(4)). Its jumps count from the next instruction.
var refusals = []syscall.SockFilter{
	{Code: load, K: offsetNumber},
	{Code: and, K: ^uint32(x32)},
	{Code: ifEqual, K: ioUringSetup, Jt: 6},
	{Code: ifEqual, K: ioUringEnter, Jt: 5},
	{Code: ifEqual, K: ioUringRegister, Jt: 4},
	{Code: ifEqual, K: syscall.SYS_SOCKET, Jt: 1},
	{Code: ifEqual, K: socket32, Jf: 3},
	{Code: load, K: offsetFirst},
	{Code: ifEqual, K: familyVsock, Jf: 1},
	{Code: answer, K: refuse},
	{Code: answer, K: allow},
}

// RefuseRiskyCalls takes io_uring and sockets to a hypervisor from this process and from all that it starts, on top of
// the filter that there is: the default profiles of older engines leave them. It needs no-new-privileges.
func RefuseRiskyCalls() error {
	program := syscall.SockFprog{Len: uint16(len(refusals)), Filter: &refusals[0]}
	thread, _, errno := syscall.RawSyscall(sysSeccomp, setModeFilter, syncThreads, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(&program)
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}
