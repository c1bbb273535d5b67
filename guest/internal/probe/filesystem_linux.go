package probe

import (
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

var fileSystemAttempts = []attempt{
	{"mount", "mount a tmpfs", mountTmpfs},
	{"bind-mount", "bind a directory to another place", bindMount},
	{"mount-api", "mount by fsopen and open_tree", mountAPI},
	{"remount-root", "remount /", remountRoot},
	{"pivot-root", "pivot_root", pivotRoot},
	{"chroot", "chroot", changeRoot},
	{"root-write", "write outside of the working directory, /tmp and HOME", writeRoot},
	{"exec-from-tmp", "execute a program from /tmp or /dev/shm", executeFromTmp},
	{"mknod-disk", "make a block device", makeDisk},
	{"open-by-handle", "open a file of the host by its handle", openByHandle},
}

func mountTmpfs(t *trial) {
	if dir, ok := t.anyPrivateDir(); ok {
		err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size=4k")
		if err == nil {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		t.answer("mount a tmpfs", err)
	}
}

func bindMount(t *trial) {
	if dir, ok := t.anyPrivateDir(); ok {
		err := syscall.Mount(dir, dir, "", syscall.MS_BIND, "")
		if err == nil {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		t.answer("bind a directory", err)
	}
}

const (
	sysOpenTree    = 428 // these have one number on every architecture
	sysFsopen      = 430
	openTreeClone  = 1
	atFDCWD        = -100
	cloexec        = syscall.O_CLOEXEC
	remountableBit = 4096 // ST_RELATIME
)

func mountAPI(t *trial) {
	name := []byte("tmpfs\x00")
	fd, _, errno := syscall.RawSyscall(sysFsopen, uintptr(unsafe.Pointer(&name[0])), 0, 0)
	t.descriptor("fsopen", fd, errno)
	root, here := []byte("/\x00"), atFDCWD
	fd, _, errno = syscall.RawSyscall(sysOpenTree, uintptr(here), uintptr(unsafe.Pointer(&root[0])), openTreeClone|cloexec)
	t.descriptor("open_tree", fd, errno)
}

// descriptor takes the answer of a call that returns a descriptor, and closes that.
func (t *trial) descriptor(what string, fd uintptr, errno syscall.Errno) {
	if errno == 0 {
		syscall.Close(int(fd))
	}
	t.answer(what, failure(errno))
}

// remountRoot asks for the flags that / has: allowed, it changes nothing.
func remountRoot(t *trial) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/", &fs); err != nil {
		t.skip("statfs /: %v", err)
		return
	}
	same := uintptr(fs.Flags) & (syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC |
		syscall.MS_NOATIME | syscall.MS_NODIRATIME)
	if fs.Flags&remountableBit != 0 {
		same |= syscall.MS_RELATIME
	}
	t.answer("remount /", syscall.Mount("", "/", "", syscall.MS_REMOUNT|syscall.MS_BIND|same, ""))
}

// pivotRoot names directories that are not there: a permitted call goes on to miss them.
func pivotRoot(t *trial) {
	err := syscall.PivotRoot("/.agentic-probe-none", "/.agentic-probe-none")
	if err == syscall.ENOENT {
		t.pass("pivot_root: allowed, then %v", err)
		return
	}
	t.answer("pivot_root", err)
}

func changeRoot(t *trial) { t.answer("chroot to /", syscall.Chroot("/")) }

var systemDirs = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/root", "/run", "/run/lock", "/sbin",
	"/srv", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/local/bin", "/var", "/var/cache", "/var/lib", "/var/log",
	"/var/mail", "/var/tmp",
}

func writeRoot(t *trial) {
	for _, dir := range systemDirs {
		t.make(dir)
	}
	t.open("/etc/passwd", syscall.O_WRONLY)
	t.open("/etc/ld.so.preload", syscall.O_WRONLY)
}

func executeFromTmp(t *trial) {
	for _, parent := range []string{"/tmp", "/dev/shm"} {
		dir, ok := t.privateDir(parent)
		if !ok {
			continue
		}
		if path, ok := t.copySelf(dir); ok {
			_, err := output(path, "version")
			t.answer("execute a copy of this program in "+parent, err)
		}
	}
}

// copySelf makes a program that goes with the attempt.
func (t *trial) copySelf(dir string) (string, bool) {
	path := filepath.Join(dir, "program")
	t.later(func() { _ = syscall.Unlink(path) })
	content, err := os.ReadFile(selfRun)
	if err == nil {
		err = os.WriteFile(path, content, 0o700)
	}
	if err != nil {
		t.skip("copy of a program: %v", reason(err))
	}
	return path, err == nil
}

const firstDisk = 8 << 8 // device 8:0

func makeDisk(t *trial) {
	if dir, ok := t.anyPrivateDir(); ok {
		path := filepath.Join(dir, "disk")
		t.later(func() { _ = syscall.Unlink(path) })
		t.answer("mknod of block device 8:0", syscall.Mknod(path, syscall.S_IFBLK|0o600, firstDisk))
	}
}

// openByHandle gives a handle that no file has; CAP_DAC_READ_SEARCH is looked for before the file is.
func openByHandle(t *trial) {
	handle := struct {
		size, kind uint32
		content    [8]byte
	}{size: 8, kind: 1}
	here := atFDCWD
	fd, _, errno := syscall.RawSyscall(sysOpenByHandleAt, uintptr(here), uintptr(unsafe.Pointer(&handle)), cloexec)
	t.descriptor("open_by_handle_at", fd, errno)
}
