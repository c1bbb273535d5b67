package files

import (
	"errors"
	"os"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

var reasons = []struct {
	errno  syscall.Errno
	reason fault.Reason
}{
	{syscall.ENOENT, fault.FileNotFound},
	{syscall.EEXIST, fault.FileExists},
	{syscall.ENOTDIR, fault.NotADirectory},
	{syscall.EISDIR, fault.IsADirectory},
	{syscall.ENOTEMPTY, fault.DirectoryNotEmpty},
	{syscall.EACCES, fault.PermissionDenied},
	{syscall.EPERM, fault.PermissionDenied},
	{syscall.EROFS, fault.PermissionDenied},
	{syscall.ENOSPC, fault.NoSpace},
	{syscall.EDQUOT, fault.NoSpace},
	{syscall.EFBIG, fault.NoSpace},
	{syscall.ENXIO, fault.NotARegularFile},
}

// Package os does not export what os.Root reports.
const (
	escapesText     = "path escapes from parent"
	noDirectoryText = "not a directory"
)

// problem turns an error about a place into the protocol's. It leaves out the names that only the guest knows.
func problem(at place, err error) error {
	if err == nil {
		return nil
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	err = cause(err)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		for _, r := range reasons {
			if r.errno == errno {
				return fault.New(r.reason, "%q: %v", at.shown, errno)
			}
		}
		if errno == syscall.EXDEV {
			return fault.New(fault.FileSystem, "%q: source and target are on different file systems; copy instead", at.shown)
		}
	}
	switch err.Error() {
	case escapesText:
		return fault.New(fault.PathEscapes, "%q leads out of the workspace", at.shown)
	case noDirectoryText:
		return fault.New(fault.NotADirectory, "%q: not a directory", at.shown)
	}
	return fault.New(fault.FileSystem, "%q: %v", at.shown, err)
}

// cause is what lies below the names: package os nests its errors.
func cause(err error) error {
	for {
		var pathError *os.PathError
		var linkError *os.LinkError
		switch {
		case errors.As(err, &pathError):
			err = pathError.Err
		case errors.As(err, &linkError):
			err = linkError.Err
		default:
			return err
		}
	}
}
