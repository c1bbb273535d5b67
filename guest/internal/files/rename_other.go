//go:build !linux

package files

import (
	"os"
	"path/filepath"
	"syscall"
)

// rename moves an entry between directories. On this platform another process may swap them meanwhile.
func rename(fromDir *os.Root, from string, toDir *os.Root, to string, overwrite bool) error {
	if !overwrite && exists(toDir, to) {
		return syscall.EEXIST
	}
	return os.Rename(filepath.Join(fromDir.Name(), from), filepath.Join(toDir.Name(), to))
}
