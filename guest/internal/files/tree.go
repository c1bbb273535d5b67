package files

import (
	"os"
	"syscall"
)

// tree is the part of a file system that paths are resolved in. All its names are those that Space.locate makes.
type tree interface {
	// Open follows symlinks. It must not be asked for anything but reading.
	Open(name string, flag int) (*os.File, error)
	Stat(name string) (os.FileInfo, error)
	Lstat(name string) (os.FileInfo, error)
	Readlink(name string) (string, error)
	MkdirAll(name string, perm os.FileMode) error
	// OpenDir pins a directory, so that what is done in it is done there wherever its path leads by then.
	OpenDir(name string) (*os.Root, error)
}

// within makes the kernel resolve a name's last part as a directory: opening a FIFO instead would block.
const within = "/."

// confined resolves names beneath a directory, also against a workload that swaps symlinks meanwhile.
type confined struct{ *os.Root }

func (c confined) Open(name string, flag int) (*os.File, error) { return c.OpenFile(name, flag, 0) }

func (c confined) OpenDir(name string) (*os.Root, error) { return c.OpenRoot(name + within) }

// plain is the whole file system.
type plain struct{}

func (plain) Open(name string, flag int) (*os.File, error) {
	if flag&syscall.O_DIRECTORY == 0 {
		return os.OpenFile(name, flag, 0)
	}
	// The runtime's poller, which takes no directories, would be asked in vain, by five system calls.
	fd, err := syscall.Open(name, flag|syscall.O_CLOEXEC, 0)
	for err == syscall.EINTR {
		fd, err = syscall.Open(name, flag|syscall.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (plain) Stat(name string) (os.FileInfo, error)        { return os.Stat(name) }
func (plain) Lstat(name string) (os.FileInfo, error)       { return os.Lstat(name) }
func (plain) Readlink(name string) (string, error)         { return os.Readlink(name) }
func (plain) MkdirAll(name string, perm os.FileMode) error { return os.MkdirAll(name, perm) }
func (plain) OpenDir(name string) (*os.Root, error)        { return os.OpenRoot(name + within) }

const (
	openForReading = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY
	openDirectory  = os.O_RDONLY | syscall.O_DIRECTORY
)
