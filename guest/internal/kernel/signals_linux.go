package kernel

import (
	"syscall"
	"unsafe"
)

const lastSignal = 64

// sigaction is the kernel's own structure, which has this layout on amd64 and arm64.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	handlerDefault = 0
	handlerIgnore  = 1
)

// DefaultSignals gives every signal that this process has inherited as ignored its default action again: its children
// would inherit the ignoring, and whoever started the guest may ignore some (a libc ignores 32 and 33 in what it spawns).
func DefaultSignals() {
	for signal := uintptr(1); signal <= lastSignal; signal++ {
		var action sigaction
		if !actOn(signal, nil, &action) || action.handler != handlerIgnore {
			continue
		}
		actOn(signal, &sigaction{handler: handlerDefault}, nil)
	}
}

// IgnoreRest makes this process ignore what it neither handles nor ignores yet and what would end or stop it. Where it
// is PID 1, Linux protects it from such signals of its own namespace; gVisor does not.
func IgnoreRest() {
	for signal := uintptr(1); signal <= lastSignal; signal++ {
		var action sigaction
		if signal == uintptr(syscall.SIGCHLD) || !actOn(signal, nil, &action) || action.handler != handlerDefault {
			continue
		}
		actOn(signal, &sigaction{handler: handlerIgnore}, nil)
	}
}

func actOn(signal uintptr, set, got *sigaction) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, signal,
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(got)), unsafe.Sizeof(set.mask), 0, 0)
	return errno == 0
}
