package probe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

var processAttempts = []attempt{
	{"ptrace-init", "trace PID 1", func(t *trial) { t.trace(1) }},
	{"init-memory", "read and write the memory of PID 1", func(t *trial) { t.memory(1) }},
	{"init-environ", "read the environment of PID 1", func(t *trial) { t.environ(1) }},
	{"guest-processes", "trace and read the guest's shims and bridges", openGuests},
	{"other-users", "read the environment of other users' processes", readOtherUsers},
	{"host-processes", "see the host's processes", seeHost},
	{"core-dumps", "have a core dumped", dumpCore},
	{"open-files", "exhaust file descriptors", exhaustDescriptors},
}

const (
	ptraceSeize = 0x4206
	ptraceEnd   = syscall.PTRACE_DETACH
)

// trace attaches without stopping the process; the attachment ends with this thread at the latest.
func (t *trial) trace(pid int) {
	runtime.LockOSThread()
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceSeize, uintptr(pid), 0, 0, 0, 0)
	if errno == 0 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceEnd, uintptr(pid), 0, 0, 0, 0)
	}
	t.answer(fmt.Sprintf("trace %d", pid), failure(errno))
}

// memory asks for a byte at an address where there is none.
func (t *trial) memory(pid int) {
	path := fmt.Sprintf("/proc/%d/mem", pid)
	t.open(path, syscall.O_RDONLY)
	t.open(path, syscall.O_RDWR)
	var local byte
	here := [2]uintptr{uintptr(unsafe.Pointer(&local)), 1}
	there := [2]uintptr{1, 1}
	_, _, errno := syscall.RawSyscall6(sysProcessVMReadv, uintptr(pid), uintptr(unsafe.Pointer(&here)), 1,
		uintptr(unsafe.Pointer(&there)), 1, 0)
	runtime.KeepAlive(&local)
	t.answer(fmt.Sprintf("process_vm_readv of %d", pid), failure(errno))
}

const keyOfSettings = `"key"`

// environ reads an environment. That of a guest's process is of worth only where it holds the settings.
func (t *trial) environ(pid int) {
	path := fmt.Sprintf("/proc/%d/environ", pid)
	raw, err := os.ReadFile(path)
	switch {
	case err != nil:
		t.answer("read "+path, err)
	case len(raw) == 0:
		t.refuse("read %s: it is empty", path)
	case guestRole(pid) == "":
		t.pass("read %s: allowed", path)
	case bytes.Contains(raw, []byte(keyOfSettings)):
		t.pass("read %s: it holds the guest's settings with its key", path)
	default:
		t.refuse("read %s: it holds no settings", path)
	}
}

// descriptors tries to open what a process has open, as the bridge's link to the service. It leaves out what has a path,
// by which anybody may try to open it, and what takes complaints.
func (t *trial) descriptors(pid int) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.answer("read "+dir, err)
		return
	}
	for _, name := range names {
		path := filepath.Join(dir, name.Name())
		if target, err := os.Readlink(path); err == nil && filepath.IsAbs(target) || name.Name() == "2" {
			continue
		}
		t.open(path, syscall.O_WRONLY)
		t.open(path, syscall.O_RDONLY)
	}
}

// processes are all that can be seen.
func processes() []int {
	entries, _ := os.ReadDir("/proc")
	pids := []int{}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// guestRole returns which of the guest's processes this is, if it is one.
func guestRole(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	words := strings.Split(string(raw), "\x00")
	if len(words) < 2 || !strings.HasPrefix(filepath.Base(words[0]), "agentic-guest") {
		return ""
	}
	if role := words[1]; role == "serve" || role == "shim" || role == "bridge" {
		return role
	}
	return ""
}

// openGuests spares PID 1, which has attempts of its own, and does not trace on a machine that is not the guest's.
func openGuests(t *trial) {
	ours := guestRole(1) == "serve"
	for _, pid := range processes() {
		if pid == 1 || guestRole(pid) == "" {
			continue
		}
		t.memory(pid)
		t.environ(pid)
		t.descriptors(pid)
		if ours {
			t.trace(pid)
		}
	}
	t.skip("no such process is seen")
}

func readOtherUsers(t *trial) {
	for _, pid := range processes() {
		info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		if err != nil {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
			t.environ(pid)
		}
	}
	t.skip("every process that is seen is this user's")
}

// seeHost takes a guest as PID 1 for a sign that the processes are the workspace's alone.
func seeHost(t *trial) {
	if guestRole(1) == "serve" {
		t.refuse("look at /proc: PID 1 is the guest, and %d processes are seen", len(processes()))
		return
	}
	name := procStatus(1)["Name"]
	t.pass("look at /proc: PID 1 is %s, and %d processes are seen", name, len(processes()))
}

func dumpCore(t *trial) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit); err != nil {
		t.skip("getrlimit: %v", err)
		return
	}
	if limit.Max > 0 {
		t.pass("limit of core dumps: a process may raise it to %s", size(limit.Max))
		return
	}
	t.answer("raise the limit of core dumps from 0", syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1, Max: 1}))
}

func size(limit uint64) string {
	if limit == ^uint64(0) {
		return "infinity"
	}
	return strconv.FormatUint(limit, 10)
}

// mostDescriptors is where an attempt to exhaust them gives up.
const mostDescriptors = 1 << 16

func exhaustDescriptors(t *trial) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.skip("getrlimit: %v", err)
		return
	}
	higher := syscall.Rlimit{Cur: limit.Max + 1, Max: limit.Max + 1}
	if !isRoot() && limit.Max < ^uint64(0) {
		t.answer("raise the limit of open files", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &higher))
	}
	opened := make([]int, 0, mostDescriptors)
	defer func() {
		for _, fd := range opened {
			syscall.Close(fd)
		}
	}()
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit.Max, Max: limit.Max})
	for len(opened) < mostDescriptors {
		fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.refuse("open files without end: %v after %d", err, len(opened))
			return
		}
		opened = append(opened, fd)
	}
	t.pass("open files without end: %d were had", len(opened))
}

// findEnviron looks for a text in what any process was given.
func findEnviron(t *trial, text string) {
	pids := processes()
	for _, pid := range pids {
		for _, name := range []string{"environ", "cmdline"} {
			path := fmt.Sprintf("/proc/%d/%s", pid, name)
			raw, err := os.ReadFile(path)
			if err == nil && pid != os.Getpid() && bytes.Contains(raw, []byte(text)) && !isSearch(raw) {
				t.pass("search in %s: found", path)
			}
		}
	}
	t.refuse("search in %d processes: not found", len(pids))
}

// isSearch tells the command line of this search, which holds the text as well, from others.
func isSearch(commandLine []byte) bool { return bytes.Contains(commandLine, []byte("find-environ")) }
