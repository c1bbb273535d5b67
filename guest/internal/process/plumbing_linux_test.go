package process

import (
	"os"
	"syscall"
	"testing"
)

// One that the poller does not take would read as if it had ended. Of a pipe that is so when a user has no watches left, and
// always of a file on a disk.
func TestFileThatCannotBeWaitedForIsRefused(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	if _, err := newFile(fd, "file"); err != errNoWatch {
		t.Errorf("%v, not that it cannot be waited for", err)
	}
	if err := syscall.Close(fd); err != syscall.EBADF {
		t.Errorf("its descriptor is open: %v", err)
	}
}
