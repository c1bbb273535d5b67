package files

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"agentic-isolation/guest/internal/fault"
)

// Remove removes a file or an empty directory, or with recursive a directory and all that it holds. Once stop is closed
// it ends with fault.Cancelled: where others put more into a directory than it takes out, nothing else would end it.
func (s *Space) Remove(p string, recursive bool, stop <-chan struct{}) error {
	defer s.acquire()()
	at, dir, base, err := s.parent(p)
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	if err != nil {
		return problem(at, err)
	}
	if err := mustBeAsSpelt(at, info); err != nil {
		return err
	}
	if info.IsDir() && s.holdsWorking(info) {
		return fault.New(fault.BadRequest, "%q holds the working directory, which stays; remove what is in it", at.shown)
	}
	if recursive {
		err = (&removal{stop: stop}).entry(dir, base, 0)
	} else {
		err = dir.Remove(base)
	}
	return problem(at, err)
}

// holdsWorking tells whether a directory is the working directory or one above it.
func (s *Space) holdsWorking(directory os.FileInfo) bool {
	for name := s.working; ; name = path.Dir(name) {
		if info, err := s.tree.Stat(name); err == nil && os.SameFile(info, directory) {
			return true
		}
		if name == path.Dir(name) {
			return false
		}
	}
}

const (
	// deepestRemoval bounds how many directories within each other a removal has open.
	deepestRemoval = 8
	namesToRemove  = 1024
)

// RemoveAll removes an entry of a directory and all that it holds: of any depth, with few descriptors, and whatever
// the modes are that lock even their owner out of directories. It removes all that it can, whatever fails.
func RemoveAll(dir *os.Root, name string) error {
	return (&removal{}).entry(dir, name, 0)
}

// removal is one under way, until stop is closed. What lies too deep is moved up into its outermost directory, and removed
// from there.
type removal struct {
	stop      <-chan struct{}
	outermost *os.Root
}

func (r *removal) entry(dir *os.Root, name string, depth int) error {
	if r.isStopped() {
		return errStopped
	}
	err := dir.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	info, failed := dir.Lstat(name)
	if failed != nil || !info.IsDir() {
		return err
	}
	if mode := info.Mode().Perm(); mode&access != access {
		_ = dir.Chmod(name, mode|access)
	}
	if depth == deepestRemoval {
		return rename(dir, name, r.outermost, temporaryName(), false)
	}
	inner, err := openInner(dir, name, info)
	if err != nil {
		return err
	}
	defer inner.Close()
	if depth == 0 {
		r.outermost = inner
	}
	for {
		count, err := r.pass(inner, depth+1)
		failed := dir.Remove(name)
		if failed == nil || errors.Is(failed, fs.ErrNotExist) {
			return nil
		}
		if count == 0 {
			return cmp.Or(err, failed)
		}
	}
}

var errStopped error = fault.New(fault.Cancelled, "the removal was cancelled")

func (r *removal) isStopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// pass removes what it finds in a directory, and returns how much that was. What is removed meanwhile may make it
// miss some, and what is moved up may come too late for it.
func (r *removal) pass(dir *os.Root, depth int) (count int, err error) {
	self, err := openSelf(dir)
	if err != nil {
		return 0, err
	}
	defer self.Close()
	for {
		names, failed := self.Readdirnames(namesToRemove)
		for _, name := range names {
			if failed := r.entry(dir, name, depth); failed != nil {
				err = cmp.Or(err, failed)
			} else {
				count++
			}
		}
		if r.isStopped() {
			return 0, errStopped
		}
		if failed != nil {
			if failed != io.EOF {
				err = cmp.Or(err, failed)
			}
			return count, err
		}
	}
}
