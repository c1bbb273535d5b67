package files

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path"
	"strings"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

const (
	// KeepMode makes a write keep the mode of the file that it replaces.
	KeepMode    = -1
	defaultMode = 0o644
	maxLinks    = 40
)

// Upload is a file being written, beside its target and under another name until Commit.
type Upload struct {
	space *Space
	at    place
	dir   *os.Root
	base  string
	temp  string
	mode  int
	file  *os.File
	// overwrite: what is there is replaced.
	overwrite bool
}

// Create begins to write the file at p. Symlinks are followed: what they lead to is replaced, not they.
func (s *Space) Create(p string, mode int, parents bool) (*Upload, error) {
	if strings.HasSuffix(p, "/") {
		return nil, fault.New(fault.IsADirectory, "%q names a directory", p)
	}
	defer s.acquire()()
	if parents {
		if err := s.makeParents(p); err != nil {
			return nil, err
		}
	}
	at, dir, base, info, err := s.follow(p)
	if fault.Is(err, fault.BadRequest) && at.name != "" {
		return nil, fault.New(fault.IsADirectory, "%q is a directory", at.shown)
	}
	if err != nil {
		return nil, err
	}
	u := &Upload{space: s, at: at, dir: dir, base: base, mode: mode, overwrite: true}
	if info != nil {
		err = mustBeRegular(at, info)
	}
	if err == nil {
		err = u.open()
	}
	if err != nil {
		dir.Close()
		return nil, problem(at, err)
	}
	return u, nil
}

// open makes the file that is not yet in its place.
func (u *Upload) open() (err error) {
	u.temp = temporaryName()
	u.file, err = u.dir.OpenFile(u.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return err
}

// temporary begins the names of what is not yet in its place.
const temporary = ".agentic-upload-"

func temporaryName() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return temporary + hex.EncodeToString(random[:])
}

// follow locates p and pins the directory that it is an entry of, whatever symlinks it ends with; the caller closes it.
// Info is nil where nothing is there.
func (s *Space) follow(p string) (at place, dir *os.Root, base string, info os.FileInfo, err error) {
	shown := ""
	for range maxLinks {
		at, dir, base, err = s.parent(p)
		if shown != "" && fault.Is(err, fault.PathEscapes) {
			err = escapes(shown) // by what was asked for, and not by what a symlink makes of it
		}
		if err != nil {
			return at, nil, "", nil, err
		}
		if shown == "" {
			shown = at.shown
		}
		at.shown = shown
		info, err = dir.Lstat(base)
		if err == nil && info.Mode()&os.ModeSymlink != 0 {
			target, err := dir.Readlink(base)
			dir.Close()
			if err != nil {
				return at, nil, "", nil, problem(at, err)
			}
			if p, err = s.throughLink(at, target); err != nil {
				return at, nil, "", nil, err
			}
			continue
		}
		if err = problem(at, err); fault.Is(err, fault.FileNotFound) {
			return at, dir, base, nil, nil
		}
		if err != nil {
			dir.Close()
			return at, nil, "", nil, err
		}
		return at, dir, base, info, nil
	}
	return at, nil, "", nil, problem(place{shown: shown}, syscall.ELOOP)
}

// throughLink is the path, for locate, that a symlink at a place leads to.
func (s *Space) throughLink(at place, target string) (string, error) {
	if path.IsAbs(target) {
		if s.isConfined {
			return "", escapes(at.shown)
		}
		return target, nil
	}
	dir, _, err := split(at)
	if err != nil {
		return "", err
	}
	if s.isConfined {
		dir = s.realRoot + "/" + dir
	}
	return dir + "/" + target, nil
}

// check refuses targets that a file cannot replace; no file at all is fine.
func (u *Upload) check(info os.FileInfo, err error) error {
	if err == nil {
		return mustBeRegular(u.at, info)
	}
	if err = problem(u.at, err); fault.Is(err, fault.FileNotFound) {
		return nil
	}
	return err
}

// Write appends b.
func (u *Upload) Write(b []byte) error {
	defer u.space.acquire()()
	if _, err := u.file.Write(b); err != nil {
		return problem(u.at, err)
	}
	return nil
}

// Commit puts the file in its place. Whatever happens, the upload is over.
func (u *Upload) Commit() (Entry, error) {
	defer u.space.acquire()()
	defer u.dir.Close()
	e, err := u.commit()
	if err != nil {
		_ = u.dir.Remove(u.temp)
		return Entry{}, problem(u.at, err)
	}
	return e, nil
}

func (u *Upload) commit() (Entry, error) {
	defer u.file.Close()
	old, err := u.dir.Lstat(u.base)
	if err := u.check(old, err); err != nil {
		return Entry{}, err
	}
	mode := os.FileMode(defaultMode)
	if err == nil {
		mode = old.Mode().Perm()
		u.keepOwner(old)
	}
	if u.mode != KeepMode {
		mode = os.FileMode(u.mode)
	}
	if err := u.file.Chmod(mode); err != nil {
		return Entry{}, err
	}
	info, err := u.file.Stat()
	if err != nil {
		return Entry{}, err
	}
	// Some file systems report a full disk only here.
	if err := u.file.Close(); err != nil {
		return Entry{}, err
	}
	if u.overwrite {
		err = u.dir.Rename(u.temp, u.base)
	} else {
		err = rename(u.dir, u.temp, u.dir, u.base, false)
	}
	if err != nil {
		return Entry{}, err
	}
	return entryOf(u.at.shown, info), nil
}

// keepOwner matters to a guest that runs as root; nobody else can give files away.
func (u *Upload) keepOwner(old os.FileInfo) {
	if stat, ok := old.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		_ = u.file.Chown(int(stat.Uid), int(stat.Gid))
	}
}

// Abort drops the upload without a trace.
func (u *Upload) Abort() {
	defer u.space.acquire()()
	u.file.Close()
	_ = u.dir.Remove(u.temp)
	u.dir.Close()
}
