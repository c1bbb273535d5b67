package probe

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var identityAttempts = []attempt{
	{"setuid-0", "become root by setuid(0)", becomeRoot},
	{"raise-capabilities", "raise capabilities", raiseCapabilities},
	{"setuid-copy-workspace", "a setuid program in the working directory", func(t *trial) { setuidCopy(t, ".") }},
	{"setuid-copy-tmp", "a setuid program in /tmp", func(t *trial) { setuidCopy(t, "/tmp") }},
	{"setuid-program", "the image's own setuid programs", setuidProgram},
	{"user-namespace", "make a user namespace", userNamespace},
	{"namespaces", "make namespaces of mounts, pids, network, …", otherNamespaces},
	{"join-namespaces", "join the namespaces of PID 1", joinNamespaces},
	{"hostname", "set the hostname", setHostname},
	{"priority", "take a real-time priority", takePriority},
}

func becomeRoot(t *trial) {
	if isRoot() {
		t.skip("already root")
		return
	}
	runtime.LockOSThread() // and never unlocked: it ends with this thread's identity
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETUID, 0, 0, 0)
	t.answer("setuid(0)", failure(errno))
	_, _, errno = syscall.RawSyscall(syscall.SYS_SETGID, 0, 0, 0)
	t.answer("setgid(0)", failure(errno))
	var root uint32
	_, _, errno = syscall.RawSyscall(syscall.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&root)), 0)
	t.answer("setgroups(0)", failure(errno))
}

const (
	capabilityVersion3 = 0x20080522
	lastCapability     = 40
	capSysAdmin        = 21
	prCapBSetRead      = 23
	prCapAmbient       = 47
	prCapAmbientRaise  = 2
)

type capabilityHeader struct {
	version uint32
	pid     int32
}

type capabilityData struct{ effective, permitted, inheritable uint32 }

// raiseCapabilities asks for all there are, and then whether the next program could get any.
func raiseCapabilities(t *trial) {
	runtime.LockOSThread()
	header := capabilityHeader{version: capabilityVersion3}
	all := [2]capabilityData{{^uint32(0), ^uint32(0), ^uint32(0)}, {0x1ff, 0x1ff, 0x1ff}}
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&all[0])), 0)
	t.answer("capset of all", failure(errno))
	_, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, prCapAmbientRaise, capSysAdmin, 0, 0, 0)
	t.answerOr("raise CAP_SYS_ADMIN for programs to come", failure(errno), syscall.EINVAL)
	bounding := 0
	for capability := range uintptr(lastCapability + 1) {
		if in, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prCapBSetRead, capability, 0); errno == 0 && in == 1 {
			bounding++
		}
	}
	if bounding > 0 {
		t.pass("bounding set: programs to come can get %d capabilities", bounding)
	} else {
		t.refuse("bounding set: empty")
	}
}

// setuidCopy tries to give a program of its own to root, with the setuid bit, and starts it.
func setuidCopy(t *trial, parent string) {
	if isRoot() {
		t.skip("already root")
		return
	}
	absolute, err := filepath.Abs(parent)
	if err != nil {
		t.skip("%s: %v", parent, reason(err))
		return
	}
	dir, ok := t.privateDir(absolute)
	if !ok {
		return
	}
	path, ok := t.copySelf(dir)
	if !ok {
		return
	}
	t.answer("chown to root", syscall.Chown(path, 0, 0))
	mode := "chmod u+s: allowed"
	if err := syscall.Chmod(path, 0o4755); err != nil {
		mode = fmt.Sprintf("chmod u+s: %v", err)
	}
	identity, err := output(path, "probe", "euid")
	switch {
	case err != nil:
		t.refuse("%s, execute: %v", mode, reason(err))
	case identity == "0":
		t.pass("%s, execute: it runs as root", mode)
	default:
		t.refuse("%s, execute: it runs as uid %s", mode, identity)
	}
}

var likelySetuid = []string{"su", "passwd", "newgrp", "mount", "umount", "chsh", "chfn", "gpasswd", "sudo", "ping", "pkexec"}

func setuidProgram(t *trial) {
	if isRoot() {
		t.skip("already root")
		return
	}
	for _, name := range likelySetuid {
		for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
			path := filepath.Join(dir, name)
			info, err := os.Stat(path)
			if err != nil || info.Mode()&os.ModeSetuid == 0 || info.Sys().(*syscall.Stat_t).Uid != 0 {
				continue
			}
			t.runSetuid(path)
			return
		}
	}
	t.skip("the image has none of %s as a setuid program of root", strings.Join(likelySetuid, ", "))
}

// runSetuid starts a program's --help into a full pipe, which holds it long enough for a look at its identity.
func (t *trial) runSetuid(path string) {
	read, write, err := os.Pipe()
	if err != nil {
		t.skip("pipe: %v", reason(err))
		return
	}
	defer read.Close()
	defer write.Close()
	fillPipe(int(write.Fd()))
	command := exec.Command(path, "--help")
	command.Stdout, command.Stderr = write, write
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the thread must live for the death signal not to come early
	if err := command.Start(); err != nil {
		t.refuse("execute %s: %v", path, reason(err))
		return
	}
	effective := awaitIdentity(command.Process.Pid, filepath.Base(path))
	_ = command.Process.Kill()
	_ = command.Wait()
	switch effective {
	case "0":
		t.pass("execute %s: it runs as root", path)
	case "":
		t.skip("execute %s: it ended before it was seen", path)
	default:
		t.refuse("execute %s: it runs as uid %s", path, effective)
	}
}

const (
	pipeFill = 4 << 10
	look     = 2 * time.Second
	lookStep = 2 * time.Millisecond
)

func fillPipe(fd int) {
	_ = syscall.SetNonblock(fd, true)
	for piece := make([]byte, pipeFill); ; {
		if _, err := syscall.Write(fd, piece); err != nil {
			break
		}
	}
	_ = syscall.SetNonblock(fd, false)
}

// awaitIdentity returns the effective user id of a process when it has become the program of that name.
func awaitIdentity(pid int, name string) string {
	for deadline := time.Now().Add(look); time.Now().Before(deadline); time.Sleep(lookStep) {
		status := procStatus(pid)
		if ids := strings.Fields(status["Uid"]); status["Name"] == name && len(ids) > 1 && !strings.HasPrefix(status["State"], "Z") {
			return ids[1]
		}
	}
	return ""
}

func procStatus(pid int) map[string]string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	fields := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}

// output runs a program to its end, for at most some seconds.
func output(path string, args ...string) (string, error) {
	command := exec.Command(path, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := command.StdoutPipe()
	if err != nil {
		return "", err
	}
	runtime.LockOSThread()
	if err := command.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(2*look, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	text, _ := io.ReadAll(pipe)
	return strings.TrimSpace(string(text)), command.Wait()
}

func userNamespace(t *trial) {
	// A process of several threads cannot go into one itself; a new one starts there.
	t.answer("clone into a user namespace", startIn(syscall.CLONE_NEWUSER))
	t.answer("clone into a user and a mount namespace", startIn(syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS))
}

func startIn(namespaces uintptr) error {
	pid, err := syscall.ForkExec(selfRun, []string{"agentic-guest", "version"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: namespaces},
	})
	if err != nil {
		return err
	}
	_, _ = syscall.Wait4(pid, nil, 0, nil)
	return nil
}

const cloneNewCgroup = 0x02000000

func otherNamespaces(t *trial) {
	for _, kind := range []struct {
		name string
		flag int
	}{
		{"mounts", syscall.CLONE_NEWNS}, {"pids", syscall.CLONE_NEWPID}, {"network", syscall.CLONE_NEWNET},
		{"hostname", syscall.CLONE_NEWUTS}, {"ipc", syscall.CLONE_NEWIPC}, {"cgroups", cloneNewCgroup},
	} {
		t.answerOr("unshare "+kind.name, syscall.Unshare(kind.flag), syscall.EINVAL)
	}
}

func joinNamespaces(t *trial) {
	runtime.LockOSThread()
	for _, name := range []string{"net", "uts", "ipc", "pid", "cgroup", "mnt", "user"} {
		path := "/proc/1/ns/" + name
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.answer("open "+path, err)
			continue
		}
		_, _, errno := syscall.RawSyscall(sysSetns, uintptr(fd), 0, 0)
		syscall.Close(fd)
		// What is this process's own already cannot be joined.
		t.answerOr("join "+path, failure(errno), syscall.EINVAL)
	}
}

// setHostname sets the name that there is.
func setHostname(t *trial) {
	name, err := os.Hostname()
	if err != nil {
		t.skip("hostname: %v", reason(err))
		return
	}
	t.answer("sethostname", syscall.Sethostname([]byte(name)))
}

const schedulerFIFO = 1

func takePriority(t *trial) {
	runtime.LockOSThread()
	priority := int32(1)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedulerFIFO, uintptr(unsafe.Pointer(&priority)))
	t.answer("real-time scheduling", failure(errno))
	t.answer("nice −20", syscall.Setpriority(syscall.PRIO_PROCESS, 0, -20))
}
