package probe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

var kernelFileAttempts = []attempt{
	{"disk-devices", "open a disk of the host", openDisks},
	{"kernel-memory", "open /dev/mem, /dev/kmem, /dev/port, /proc/kcore", openMemory},
	{"kernel-log", "read the kernel's log", readKernelLog},
	{"masked-proc", "read what is masked in /proc and /sys", readMasked},
	{"sys-write", "write to /sys", writeSys},
	{"proc-sys-write", "write to /proc/sys", writeProcSys},
	{"core-pattern", "write to /proc/sys/kernel/core_pattern", func(t *trial) {
		t.open("/proc/sys/kernel/core_pattern", syscall.O_WRONLY)
	}},
	{"sysrq-trigger", "write to /proc/sysrq-trigger", func(t *trial) { t.open("/proc/sysrq-trigger", syscall.O_WRONLY) }},
	{"cgroup-release-agent", "write to a cgroup's release_agent", writeReleaseAgent},
	{"cgroup-write", "lift own limits in the cgroup file system", writeCgroups},
}

func openDisks(t *trial) {
	names := []string{"/dev/sda", "/dev/vda", "/dev/xvda", "/dev/nvme0n1", "/dev/dm-0", "/dev/loop0"}
	entries, _ := os.ReadDir("/dev")
	for _, entry := range entries {
		if entry.Type()&os.ModeDevice != 0 && entry.Type()&os.ModeCharDevice == 0 {
			names = append(names, "/dev/"+entry.Name())
		}
	}
	for _, name := range names {
		t.open(name, syscall.O_RDONLY)
	}
}

func openMemory(t *trial) {
	for _, name := range []string{"/dev/mem", "/dev/kmem", "/dev/port"} {
		t.open(name, syscall.O_RDONLY)
	}
	t.content("/proc/kcore")
}

// content tries to read a byte: masks are empty files that can be opened.
func (t *trial) content(path string) {
	file, err := os.Open(path)
	if err != nil {
		t.answer("read "+path, err)
		return
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		if names, _ := file.Readdirnames(1); len(names) == 0 {
			t.refuse("read %s: it is empty", path)
			return
		}
		t.pass("read %s: it has content", path)
		return
	}
	if n, err := file.Read(make([]byte, 1)); n == 0 {
		t.refuse("read %s: it is empty (%v)", path, reason(err))
		return
	}
	t.pass("read %s: it has content", path)
}

const (
	syslogReadAll = 3
	logSample     = 64 << 10
)

func readKernelLog(t *trial) {
	t.open("/dev/kmsg", syscall.O_RDONLY)
	buffer := make([]byte, logSample)
	n, err := syscall.Klogctl(syslogReadAll, buffer)
	if err == nil && bytes.Contains(buffer[:n], []byte("gVisor")) {
		t.refuse("syslog: the log of the sandbox's own kernel")
		return
	}
	t.answer("syslog", err)
}

func readMasked(t *trial) {
	for _, path := range []string{
		"/proc/acpi", "/proc/asound", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing",
	} {
		t.content(path)
	}
}

func writeSys(t *trial) {
	for _, path := range []string{
		"/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/profiling",
		"/sys/power/state", "/sys/power/disk", "/sys/class/net/lo/ifalias", "/sys/bus/pci/rescan",
	} {
		t.open(path, syscall.O_WRONLY)
	}
	for _, dir := range []string{"/sys", "/sys/kernel", "/sys/fs"} {
		t.make(dir)
	}
}

func writeProcSys(t *trial) {
	for _, name := range []string{
		"kernel/hostname", "kernel/modprobe", "kernel/ns_last_pid", "kernel/panic", "kernel/randomize_va_space", "kernel/sysrq",
		"fs/binfmt_misc/register", "fs/suid_dumpable", "net/ipv4/ip_forward", "vm/drop_caches", "vm/overcommit_memory",
	} {
		t.open("/proc/sys/"+name, syscall.O_WRONLY)
	}
}

const cgroupRoot = "/sys/fs/cgroup"

func writeReleaseAgent(t *trial) {
	t.open(filepath.Join(cgroupRoot, "release_agent"), syscall.O_WRONLY)
	hierarchies, _ := filepath.Glob(cgroupRoot + "/*/release_agent")
	for _, path := range hierarchies {
		t.open(path, syscall.O_WRONLY)
	}
}

// writeCgroups looks at the top of each hierarchy, which is this place's own under a cgroup namespace, and at the path
// that the kernel tells, which is its own without one.
func writeCgroups(t *trial) {
	limits := []string{
		"cgroup.procs", "tasks", "memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us", "devices.allow",
	}
	own, _ := os.ReadFile("/proc/self/cgroup")
	for _, line := range strings.Split(strings.TrimSpace(string(own)), "\n") {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) != 3 {
			continue
		}
		top := filepath.Join(cgroupRoot, strings.TrimPrefix(fields[1], "name="))
		for _, dir := range []string{top, filepath.Join(top, fields[2])} {
			if top != cgroupRoot && exists(dir) {
				t.cgroup(dir, limits)
			}
		}
	}
	t.cgroup(cgroupRoot, limits)
}

func (t *trial) cgroup(dir string, limits []string) {
	for _, name := range limits {
		if path := filepath.Join(dir, name); exists(path) {
			t.open(path, syscall.O_WRONLY)
		}
	}
	child := filepath.Join(dir, fmt.Sprintf("agentic-probe-%d", os.Getpid()))
	err := syscall.Mkdir(child, 0o755)
	if err == nil {
		_ = syscall.Rmdir(child)
	}
	t.answer("make a cgroup in "+dir, err)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
