// Package files serves the files of a workspace beneath its root.
package files

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

// maxBusy bounds the operations inside the kernel at a time: each may occupy a thread, and threads count against the
// workspace's limit of processes.
const maxBusy = 8

// Space is the files that a workspace's users see, by the paths that they see.
type Space struct {
	tree tree
	// root and realRoot are the directory as configured and with symlinks resolved; mount is its path for users.
	root, realRoot, mount string
	isConfined            bool
	// working is where relative paths begin, as the tree names it.
	working string
	busy    chan struct{}
}

// place is a path that has been located.
type place struct {
	// name is the tree's name for it, not cleaned: `..` after a symlink means the parent of the symlink's target.
	name string
	// shown is the absolute path as users see it.
	shown string
}

// namesDirectory tells whether it is spelt with a slash at its end, which POSIX lets only directories have.
func (at place) namesDirectory() bool { return strings.HasSuffix(at.name, "/") }

// mustBeAsSpelt refuses what is at a place and is no directory, where its name is one's.
func mustBeAsSpelt(at place, info os.FileInfo) error {
	if at.namesDirectory() && !info.IsDir() {
		return problem(at, syscall.ENOTDIR)
	}
	return nil
}

// New opens root, which must exist, and creates workingDir (a path as users see it) in it.
func New(root, mount, workingDir string) (*Space, error) {
	s := &Space{root: path.Clean(root), mount: path.Clean(mount), busy: make(chan struct{}, maxBusy)}
	if s.root == "/" {
		s.tree, s.realRoot = plain{}, "/"
	} else {
		r, err := os.OpenRoot(s.root + within)
		if err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
		s.tree, s.isConfined = confined{r}, true
		if s.realRoot, err = filepath.EvalSymlinks(s.root); err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
	}
	at, err := s.locate(workingDir)
	if err != nil {
		return nil, fmt.Errorf("working_dir: %w", err)
	}
	if err := s.tree.MkdirAll(at.name, 0o755); err != nil {
		return nil, fmt.Errorf("working_dir: %w", err)
	}
	s.working = at.name
	return s, nil
}

// acquire waits for a turn at the kernel; the caller calls release.
func (s *Space) acquire() (release func()) {
	s.busy <- struct{}{}
	return func() { <-s.busy }
}

// locate maps a path as users give it.
func (s *Space) locate(p string) (place, error) {
	switch {
	case p == "":
		return place{}, fault.New(fault.BadRequest, "path: must not be empty")
	case strings.ContainsRune(p, 0):
		return place{}, fault.New(fault.BadRequest, "path: must not contain NUL")
	case !s.isConfined:
		if !path.IsAbs(p) {
			p = s.working + "/" + p
		}
		return place{name: p, shown: path.Clean(p)}, nil
	}
	name := p
	if path.IsAbs(p) {
		var ok bool
		if name, ok = s.beneath(p); !ok {
			return place{}, escapes(p)
		}
	} else {
		name = s.working + "/" + p
	}
	// Refused by its spelling, a path has made no parents yet, and the message holds it as it was asked for.
	if cleaned := path.Clean(name); cleaned == ".." || strings.HasPrefix(cleaned, "../") {
		return place{}, escapes(p)
	}
	return place{name: name, shown: path.Join(s.mount, path.Join("/", name))}, nil
}

func escapes(p string) error {
	return fault.New(fault.PathEscapes, "%q leads out of the workspace", p)
}

// beneath makes an absolute path relative to the root, by whichever of the root's names fits best.
func (s *Space) beneath(p string) (string, bool) {
	best, bestLength, found := "", -1, false
	for _, prefix := range []string{s.mount, s.root, s.realRoot} {
		if rest, ok := stripPrefix(p, prefix); ok && len(prefix) > bestLength {
			best, bestLength, found = rest, len(prefix), true
		}
	}
	return best, found
}

// stripPrefix compares part by part and leaves what follows prefix as it is.
func stripPrefix(p, prefix string) (string, bool) {
	rest := trimStart(p)
	for _, part := range strings.FieldsFunc(prefix, isSlash) {
		var head string
		head, rest, _ = strings.Cut(rest, "/")
		if head != part {
			return "", false
		}
		rest = trimStart(rest)
	}
	if rest == "" {
		rest = "."
	}
	return rest, true
}

func isSlash(r rune) bool { return r == '/' }

// trimStart removes slashes and `.` parts.
func trimStart(p string) string {
	for {
		switch {
		case strings.HasPrefix(p, "/"):
			p = p[1:]
		case strings.HasPrefix(p, "./"):
			p = p[2:]
		case p == ".":
			return ""
		default:
			return p
		}
	}
}

// split separates the last part of a place. It refuses paths that have none of their own.
func split(at place) (dir, base string, err error) {
	name := strings.TrimRight(at.name, "/")
	i := strings.LastIndexByte(name, '/')
	dir, base = name[:max(i, 0)], name[i+1:]
	if dir == "" {
		dir = "."
		if strings.HasPrefix(at.name, "/") {
			dir = "/"
		}
	}
	if base == "" || base == "." || base == ".." {
		return "", "", fault.New(fault.BadRequest, "%q does not name an entry of a directory", at.shown)
	}
	return dir, base, nil
}

// WorkingDir opens a directory for a command to run in, working_dir if p is empty. It also tells its real path.
func (s *Space) WorkingDir(p string) (dir *os.File, realPath string, err error) {
	if p == "" {
		p = "."
	}
	at, err := s.locate(p)
	if err != nil {
		return nil, "", err
	}
	defer s.acquire()()
	dir, err = s.tree.Open(at.name+within, openDirectory)
	if err != nil {
		err = problem(at, err)
		if fault.Is(err, fault.FileNotFound) || fault.Is(err, fault.NotADirectory) {
			return nil, "", fault.New(fault.WorkingDirNotFound, "no directory %q", at.shown)
		}
		return nil, "", err
	}
	if !s.isConfined {
		return dir, at.shown, nil
	}
	return dir, path.Join(s.realRoot, path.Join("/", at.name)), nil
}
