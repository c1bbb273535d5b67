package files

import (
	"errors"
	"os"

	"agentic-isolation/guest/internal/fault"
)

// MaxMode is the highest mode that can be set: permission bits only.
const MaxMode = 0o777

// parent locates p and pins the directory that it is an entry of; the caller closes it.
func (s *Space) parent(p string) (at place, dir *os.Root, base string, err error) {
	at, err = s.locate(p)
	if err != nil {
		return at, nil, "", err
	}
	dirName, base, err := split(at)
	if err != nil {
		return at, nil, "", err
	}
	dir, err = s.tree.OpenDir(dirName)
	if err != nil {
		return at, nil, "", problem(at, err)
	}
	return at, dir, base, nil
}

// Mkdir makes a directory. With parents, missing ones are made and one that exists is no error.
func (s *Space) Mkdir(p string, mode os.FileMode, parents bool) (Entry, error) {
	defer s.acquire()()
	if parents {
		if err := s.makeParents(p); err != nil {
			return Entry{}, err
		}
		at, _ := s.locate(p)
		if e, err := s.stat(at, true); err == nil && e.Type == "directory" {
			return e, nil
		}
	}
	at, dir, base, err := s.parent(p)
	if err != nil {
		return Entry{}, err
	}
	defer dir.Close()
	if err := dir.Mkdir(base, mode); err != nil {
		return Entry{}, problem(at, err)
	}
	// The umask has taken bits away.
	if err := dir.Chmod(base, mode); err != nil {
		return Entry{}, problem(at, err)
	}
	info, err := dir.Lstat(base)
	if err != nil {
		return Entry{}, problem(at, err)
	}
	return entryOf(at.shown, info), nil
}

// makeParents makes the directories above p.
func (s *Space) makeParents(p string) error {
	at, err := s.locate(p)
	if err != nil {
		return err
	}
	dir, _, err := split(at)
	if fault.Is(err, fault.BadRequest) {
		return nil // the root has no parent to make
	}
	if err := s.tree.MkdirAll(dir, 0o755); err != nil {
		if err = problem(at, err); fault.Is(err, fault.FileExists) {
			return fault.New(fault.NotADirectory, "%q: a part of the path is not a directory", at.shown)
		}
		return err
	}
	return nil
}

// Move renames an entry. Without overwrite, what exists at the target is left alone.
func (s *Space) Move(from, to string, overwrite bool) (Entry, error) {
	defer s.acquire()()
	source, sourceDir, sourceBase, err := s.parent(from)
	if err != nil {
		return Entry{}, err
	}
	defer sourceDir.Close()
	target, targetDir, targetBase, err := s.parent(to)
	if err != nil {
		return Entry{}, err
	}
	defer targetDir.Close()
	moved, err := sourceDir.Lstat(sourceBase)
	if err != nil {
		return Entry{}, problem(source, err)
	}
	for _, at := range []place{source, target} {
		if err := mustBeAsSpelt(at, moved); err != nil {
			return Entry{}, err
		}
	}
	err = rename(sourceDir, sourceBase, targetDir, targetBase, overwrite)
	if err != nil {
		return Entry{}, problem(target, err)
	}
	info, err := targetDir.Lstat(targetBase)
	if err != nil {
		return Entry{}, problem(target, err)
	}
	e := entryOf(target.shown, info)
	if e.Type == "symlink" {
		e.Target, _ = targetDir.Readlink(targetBase)
	}
	return e, nil
}

// openSelf opens a pinned directory itself.
func openSelf(dir *os.Root) (*os.File, error) { return dir.OpenFile(".", openDirectory, 0) }

func exists(dir *os.Root, base string) bool {
	_, err := dir.Lstat(base)
	return !errors.Is(err, os.ErrNotExist)
}

// Chmod sets permission bits. Symlinks are followed.
func (s *Space) Chmod(p string, mode os.FileMode) (Entry, error) {
	defer s.acquire()()
	at, dir, base, info, err := s.follow(p)
	if fault.Is(err, fault.BadRequest) && at.name != "" {
		// The root, or a path that ends with a dot, which is no entry of a directory.
		if dir, err = s.tree.OpenDir(at.name); err != nil {
			return Entry{}, problem(at, err)
		}
		return chmodSelf(at, dir, mode)
	}
	if err != nil {
		return Entry{}, err
	}
	defer dir.Close()
	if info == nil {
		return Entry{}, fault.New(fault.FileNotFound, "%q: no such file or directory", at.shown)
	}
	if err := dir.Chmod(base, mode); err != nil {
		return Entry{}, problem(at, err)
	}
	if info, err = dir.Lstat(base); err != nil {
		return Entry{}, problem(at, err)
	}
	return entryOf(at.shown, info), nil
}

func chmodSelf(at place, dir *os.Root, mode os.FileMode) (Entry, error) {
	defer dir.Close()
	self, err := openSelf(dir)
	if err != nil {
		return Entry{}, problem(at, err)
	}
	defer self.Close()
	if err := self.Chmod(mode); err != nil {
		return Entry{}, problem(at, err)
	}
	info, err := self.Stat()
	if err != nil {
		return Entry{}, problem(at, err)
	}
	return entryOf(at.shown, info), nil
}
