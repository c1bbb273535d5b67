package files

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"agentic-isolation/guest/internal/fault"
)

// deepestUnlock bounds the directories that are open at a time.
const deepestUnlock = 512

// Remove removes a file or an empty directory, or with recursive a directory and all that it holds.
func (s *Space) Remove(p string, recursive bool) error {
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
	if info.IsDir() && s.holdsWorking(info) {
		return fault.New(fault.BadRequest, "%q holds the working directory, which stays; remove what is in it", at.shown)
	}
	if !recursive {
		err = dir.Remove(base)
	} else if err = dir.RemoveAll(base); errors.Is(err, fs.ErrPermission) {
		unlock(dir, base, deepestUnlock)
		err = dir.RemoveAll(base)
	}
	if err != nil {
		return problem(at, err)
	}
	return nil
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

// unlock gives the owner access to a directory and to those below it, which their modes lock even their owner out of.
func unlock(dir *os.Root, base string, depth int) {
	info, err := dir.Lstat(base)
	if err != nil || !info.IsDir() || depth == 0 {
		return
	}
	_ = dir.Chmod(base, 0o700)
	inner, err := dir.OpenRoot(base + within)
	if err != nil {
		return
	}
	defer inner.Close()
	self, err := openSelf(inner)
	if err != nil {
		return
	}
	entries, _ := self.ReadDir(-1)
	self.Close()
	for _, entry := range entries {
		if entry.IsDir() {
			unlock(inner, entry.Name(), depth-1)
		}
	}
}
