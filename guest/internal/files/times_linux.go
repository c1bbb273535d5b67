package files

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

const symlinkNoFollow = 0x100 // AT_SYMLINK_NOFOLLOW

// setTimes sets an open file's times.
func setTimes(f *os.File, t time.Time) error {
	times := timespecs(t)
	_, _, errno := syscall.Syscall6(syscall.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setLinkTimes sets the times of a symlink itself.
func setLinkTimes(dir *os.Root, name string, t time.Time) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	self, err := openSelf(dir)
	if err != nil {
		return err
	}
	defer self.Close()
	times := timespecs(t)
	_, _, errno := syscall.Syscall6(syscall.SYS_UTIMENSAT, self.Fd(), uintptr(unsafe.Pointer(pointer)),
		uintptr(unsafe.Pointer(&times)), symlinkNoFollow, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func timespecs(t time.Time) [2]syscall.Timespec {
	spec := syscall.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return [2]syscall.Timespec{spec, spec}
}
