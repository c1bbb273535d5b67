package probe

import (
	"runtime"
	"syscall"
	"unsafe"
)

var kernelAttempts = []attempt{
	{"load-module", "load or unload a kernel module", loadModule},
	{"kexec", "load another kernel", loadKernel},
	{"reboot", "reboot", reboot},
	{"bpf", "make a BPF map", makeMap},
	{"perf-event", "open a performance counter", openCounter},
	{"keyring", "use the kernel's key rings", useKeyring},
	{"userfaultfd", "open a userfaultfd", openUserfault},
	{"io-uring", "set up an io_uring", setUpRing},
	{"clock-set", "set the clock", setClock},
	{"io-ports", "reach the machine's I/O ports", reachPorts},
	{"swap-and-accounting", "use a swap file, write process accounts", swapAndAccounting},
}

// loadModule gives nothing to load: a permitted call complains about that.
func loadModule(t *trial) {
	empty := []byte{0}
	text := uintptr(unsafe.Pointer(&empty[0]))
	_, _, errno := syscall.RawSyscall(syscall.SYS_INIT_MODULE, 0, 0, text)
	t.answer("init_module", failure(errno))
	_, _, errno = syscall.RawSyscall(sysFinitModule, ^uintptr(0), text, 0)
	t.answer("finit_module", failure(errno))
	_, _, errno = syscall.RawSyscall(syscall.SYS_DELETE_MODULE, text, syscall.O_NONBLOCK, 0)
	if errno == syscall.ENOENT {
		t.pass("delete_module: allowed, then %v", errno)
		return
	}
	t.answer("delete_module", failure(errno))
}

// invalidFlags are none that any call knows.
const invalidFlags = 0x7f000000

func loadKernel(t *trial) {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_KEXEC_LOAD, 0, 0, 0, invalidFlags, 0, 0)
	t.answer("kexec_load", failure(errno))
	_, _, errno = syscall.RawSyscall6(sysKexecFileLoad, ^uintptr(0), ^uintptr(0), 0, 0, invalidFlags, 0)
	t.answer("kexec_file_load", failure(errno))
}

// reboot gives magic numbers that do not reboot.
func reboot(t *trial) {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_REBOOT, 0, 0, 0, 0, 0, 0)
	t.answer("reboot", failure(errno))
}

const (
	bpfMapCreate = 0
	bpfMapArray  = 2
)

func makeMap(t *trial) {
	attributes := [18]uint32{bpfMapArray, 4, 4, 1}
	fd, _, errno := syscall.RawSyscall(sysBPF, bpfMapCreate, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	t.descriptor("bpf(BPF_MAP_CREATE)", fd, errno)
}

const (
	perfSoftware  = 1
	perfV0Size    = 64
	perfThisOne   = 0
	perfFlags     = 1<<5 | 1<<6 // exclude_kernel, exclude_hv: the least there is to ask for
	perfFlagsWord = 5
)

func openCounter(t *trial) {
	var attributes [perfV0Size / 8]uint64
	attributes[0] = perfSoftware | perfV0Size<<32
	attributes[perfFlagsWord] = perfFlags
	anyCPU, noGroup := -1, -1
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&attributes)), perfThisOne,
		uintptr(anyCPU), uintptr(noGroup), 0, 0)
	t.descriptor("perf_event_open", fd, errno)
}

const (
	keyctlGetKeyring = 0
	sessionKeyring   = -3
	processKeyring   = -2
)

func useKeyring(t *trial) {
	session, process := sessionKeyring, processKeyring
	_, _, errno := syscall.RawSyscall(syscall.SYS_KEYCTL, keyctlGetKeyring, uintptr(session), 0)
	t.answer("keyctl", failure(errno))
	kind, name := []byte("user\x00"), []byte("agentic-probe\x00")
	// On a ring that goes with this process.
	_, _, errno = syscall.RawSyscall6(syscall.SYS_ADD_KEY, uintptr(unsafe.Pointer(&kind[0])), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&name[0])), 1, uintptr(process), 0)
	t.answer("add_key", failure(errno))
}

const userModeOnly = 1

func openUserfault(t *trial) {
	fd, _, errno := syscall.RawSyscall(sysUserfaultfd, cloexec|userModeOnly, 0, 0)
	t.descriptor("userfaultfd", fd, errno)
}

const (
	sysIOUringSetup  = 425
	ioUringParameter = 120
)

func setUpRing(t *trial) {
	var parameters [ioUringParameter]byte
	fd, _, errno := syscall.RawSyscall(sysIOUringSetup, 1, uintptr(unsafe.Pointer(&parameters)), 0)
	t.descriptor("io_uring_setup", fd, errno)
}

const (
	adjustTick   = 0x4000
	clockInvalid = 2_000_000_000 // nanoseconds in a second
)

// setClock gives values that no clock takes.
func setClock(t *trial) {
	_, err := syscall.Adjtimex(&syscall.Timex{Modes: adjustTick, Tick: 1})
	t.answer("adjtimex", err)
	if err == syscall.EPERM {
		// Asked second: this one may look at the value before it looks at the permission.
		never := syscall.Timespec{Nsec: clockInvalid}
		_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_SETTIME, 0, uintptr(unsafe.Pointer(&never)), 0)
		if errno != syscall.EINVAL {
			t.answer("clock_settime", failure(errno))
		}
	}
}

func reachPorts(t *trial) {
	t.open("/dev/port", syscall.O_RDONLY)
	if sysIOPrivilegeFrom != 0 {
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall(sysIOPrivilegeFrom, 3, 0, 0)
		t.answer("iopl", failure(errno))
	}
}

// swapAndAccounting names a file that is not there.
func swapAndAccounting(t *trial) {
	name := []byte("/.agentic-probe-none\x00")
	for _, call := range []struct {
		name   string
		number uintptr
	}{{"swapon", syscall.SYS_SWAPON}, {"acct", syscall.SYS_ACCT}} {
		_, _, errno := syscall.RawSyscall(call.number, uintptr(unsafe.Pointer(&name[0])), 0, 0)
		if errno == syscall.ENOENT {
			t.pass("%s: allowed, then %v", call.name, errno)
			continue
		}
		t.answer(call.name, failure(errno))
	}
}
