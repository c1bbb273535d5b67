package kernel

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"unsafe"
)

// Of seccomp(2); package syscall has only the instructions.
const (
	setModeFilter = 1
	syncThreads   = 1
	allow         = 0x7fff0000
	refuse        = 0x00050000 | uint32(syscall.EPERM)
	deny          = 0x00050000 | uint32(syscall.ENOSYS)

	offsetNumber    = 0
	offsetInterface = 4
	offsetArguments = 16
	argumentSize    = 8
	halfSize        = 4 // of an argument, the lower one first

	load    = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS
	and     = syscall.BPF_ALU | syscall.BPF_AND | syscall.BPF_K
	ifEqual = syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K
	answer  = syscall.BPF_RET | syscall.BPF_K

	ioUringSetup    = 425 // this and the next two are the same on every architecture
	ioUringEnter    = 426
	ioUringRegister = 427
	familyVsock     = 40
	makeSocket      = 1          // of socketcall(2)
	x32             = 0x40000000 // marks the numbers of the x32 interface
)

// abi is an interface by which programs call the kernel, and its numbers of calls; absent is none.
type abi struct {
	// audit is what seccomp(2) calls it (AUDIT_ARCH_…).
	audit                                 uint32
	socket, socketCall, limit, asyncSetup uint32
}

const absent = ^uint32(0)

// refusals is the filter (seccomp(2), bpf(4)) for a machine's interfaces.
func refusals(abis []abi) []syscall.SockFilter {
	var program []syscall.SockFilter
	for _, a := range abis {
		rules := slices.Concat(
			on(ioUringSetup, refuse), on(ioUringEnter, refuse), on(ioUringRegister, refuse),
			on(a.socket, refuse, isArgument(0, familyVsock)),
			// What it makes lies in memory, which a filter does not see.
			on(a.socketCall, refuse, isArgument(0, makeSocket)),
			// One's own limits are those of process 0. Others' would take from the guest and its shims what they need to
			// end what they supervise, and the kernel goes by the user alone.
			on(a.limit, refuse, isNotArgument(0, 0), isNotNull(2)),
			// There are so many requests for the whole machine, whoever makes them.
			on(a.asyncSetup, deny),
		)
		program = append(program,
			syscall.SockFilter{Code: load, K: offsetInterface},
			syscall.SockFilter{Code: ifEqual, K: a.audit, Jt: 1},
			syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JA, K: uint32(len(rules))},
		)
		program = append(program, rules...)
	}
	return append(program, syscall.SockFilter{Code: answer, K: allow})
}

// on answers a call for which all conditions hold. Jumps count from the next instruction.
func on(number, how uint32, conditions ...func(rest int) []syscall.SockFilter) []syscall.SockFilter {
	if number == absent {
		return nil
	}
	rule := []syscall.SockFilter{{Code: answer, K: how}}
	for _, condition := range slices.Backward(conditions) {
		rule = append(condition(len(rule)), rule...)
	}
	return append([]syscall.SockFilter{
		{Code: load, K: offsetNumber},
		{Code: and, K: ^uint32(x32)},
		{Code: ifEqual, K: number, Jf: uint8(len(rule))},
	}, rule...)
}

// isArgument compares a number of 32 bits, and passes over the rest of the rule where it is another one.
func isArgument(index, value uint32) func(rest int) []syscall.SockFilter {
	return func(rest int) []syscall.SockFilter {
		return []syscall.SockFilter{
			{Code: load, K: offsetArguments + index*argumentSize},
			{Code: ifEqual, K: value, Jf: uint8(rest)},
		}
	}
}

// isNotArgument is the opposite.
func isNotArgument(index, value uint32) func(rest int) []syscall.SockFilter {
	return func(rest int) []syscall.SockFilter {
		return []syscall.SockFilter{
			{Code: load, K: offsetArguments + index*argumentSize},
			{Code: ifEqual, K: value, Jt: uint8(rest)},
		}
	}
}

// isNotNull looks at both halves of an address, and passes over the rest of the rule where it is none.
func isNotNull(index uint32) func(rest int) []syscall.SockFilter {
	return func(rest int) []syscall.SockFilter {
		return []syscall.SockFilter{
			{Code: load, K: offsetArguments + index*argumentSize},
			{Code: ifEqual, K: 0, Jf: 2},
			{Code: load, K: offsetArguments + index*argumentSize + halfSize},
			{Code: ifEqual, K: 0, Jt: uint8(rest)},
		}
	}
}

// RefuseRiskyCalls takes io_uring, sockets to a hypervisor, other processes' limits and the machine's asynchronous requests
// from this process and from all that it starts, on top of the filter that there is: the default profiles of engines, or of
// older ones, leave them. It needs no-new-privileges.
func RefuseRiskyCalls() error {
	filter := refusals(abis)
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
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
