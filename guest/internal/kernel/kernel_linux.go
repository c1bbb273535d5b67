// Package kernel asks the operating system for the protections a guest needs and tells what it has.
package kernel

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	prSetDumpable       = 4
	prGetSeccomp        = 21
	prSetChildSubreaper = 36
	prSetNoNewPrivs     = 38
	prGetNoNewPrivs     = 39
	rlimitNproc         = 6
	syslogReadAll       = 3
)

// BecomeSubreaper makes orphaned descendants of this process its children.
func BecomeSubreaper() error { return prctl(prSetChildSubreaper, 1) }

// ForbidTracing makes this process non-dumpable: processes of the same user can neither trace it nor read its memory.
func ForbidTracing() error { return prctl(prSetDumpable, 0) }

// DropNewPrivileges sets no-new-privileges on all threads, hence for everything started from now on.
func DropNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// ask returns what prctl answers to a question, or 0 where it does not know it.
func ask(option uintptr) int {
	answer, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(answer)
}

func prctl(option, value uintptr) error {
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// Describe reads the confinement of this process back from the kernel.
func Describe() Info {
	status := readStatus("/proc/self/status")
	info := Info{
		UID: os.Getuid(), GID: os.Getgid(), Groups: []int{},
		Capabilities: status["CapEff"],
		// A sandboxed kernel's /proc need not tell these two.
		NoNewPrivs:   ask(prGetNoNewPrivs) == 1,
		Seccomp:      ask(prGetSeccomp),
		RootReadOnly: rootReadOnly(),
		GVisor:       IsGVisor(),
	}
	for _, g := range strings.Fields(status["Groups"]) {
		if n, err := strconv.Atoi(g); err == nil {
			info.Groups = append(info.Groups, n)
		}
	}
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		info.Kernel = text(u.Release[:])
	}
	return info
}

// IsGVisor goes by the log of gVisor's kernel, which anybody may read there, and whose first line names it.
var IsGVisor = sync.OnceValue(func() bool {
	log := make([]byte, 4<<10)
	n, err := syscall.Klogctl(syslogReadAll, log)
	return err == nil && strings.Contains(string(log[:max(n, 0)]), "gVisor")
})

// ResourceLimits returns the hard limits of open files and of the user's processes; nil where there is none.
func ResourceLimits() (openFiles, processes *int64) {
	return hardLimit(syscall.RLIMIT_NOFILE), hardLimit(rlimitNproc)
}

func hardLimit(resource int) *int64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(resource, &limit) != nil || limit.Max > 1<<62 {
		return nil
	}
	value := int64(limit.Max)
	return &value
}

// SizeBytes returns how much a file system holds.
func SizeBytes(dir string) (int64, bool) {
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil {
		return 0, false
	}
	return int64(fs.Blocks) * int64(fs.Bsize), true
}

// UsedBytes returns how much of a file system is in use.
func UsedBytes(dir string) (int64, bool) {
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil {
		return 0, false
	}
	return int64(fs.Blocks-fs.Bfree) * int64(fs.Bsize), true
}

func readStatus(name string) map[string]string {
	raw, _ := os.ReadFile(name)
	fields := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}

// rootReadOnly trusts the mount table, as a sandboxed kernel's statfs need not tell flags.
func rootReadOnly() bool {
	raw, _ := os.ReadFile("/proc/self/mountinfo")
	readOnly := false
	for _, line := range strings.Split(string(raw), "\n") {
		f := strings.Fields(line)
		if len(f) > 5 && f[4] == "/" {
			options := strings.Split(f[5], ",")
			readOnly = options[0] == "ro"
		}
	}
	return readOnly
}

// text works on both signednesses that Utsname has between architectures.
func text[T int8 | uint8](field []T) string {
	var b strings.Builder
	for _, c := range field {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}
