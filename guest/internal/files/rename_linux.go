package files

import (
	"os"
	"syscall"
	"unsafe"
)

const renameNoReplace = 1

// rename moves an entry between pinned directories.
func rename(fromDir *os.Root, from string, toDir *os.Root, to string, overwrite bool) error {
	source, err := openSelf(fromDir)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openSelf(toDir)
	if err != nil {
		return err
	}
	defer target.Close()
	if !overwrite {
		err := renameat2(int(source.Fd()), from, int(target.Fd()), to, renameNoReplace)
		// Not every file system can tell.
		if err != syscall.EINVAL && err != syscall.ENOSYS {
			return err
		}
		if exists(toDir, to) {
			return syscall.EEXIST
		}
	}
	err = syscall.Renameat(int(source.Fd()), from, int(target.Fd()), to)
	if err == syscall.EEXIST {
		// rename(2) says so of a target directory that is not empty.
		return syscall.ENOTEMPTY
	}
	return err
}

func renameat2(fromDir int, from string, toDir int, to string, flags uintptr) error {
	old, err := syscall.BytePtrFromString(from)
	if err != nil {
		return err
	}
	fresh, err := syscall.BytePtrFromString(to)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(sysRenameat2, uintptr(fromDir), uintptr(unsafe.Pointer(old)),
		uintptr(toDir), uintptr(unsafe.Pointer(fresh)), flags, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
