package files

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// cursor goes about in the directories below a base. It follows symlinks that stay below it, one step at a time: the
// kernel of gVisor follows them where package os asks it not to. It keeps some of the directories on the way to the
// last one, which are often wanted next.
type cursor struct {
	base *os.Root
	// makes: directories that are missing are made.
	makes bool
	// kept are such that each lies in the one before. Their paths hold no symlinks.
	kept []pinned
}

type pinned struct {
	path string
	dir  *os.Root
}

// errEscapes is what os.Root reports as well.
var errEscapes = errors.New(escapesText)

// at pins a directory. It is valid until the next call.
func (c *cursor) at(path string) (*os.Root, error) {
	real, err := c.resolve(path)
	if err != nil {
		return nil, err
	}
	return c.pin(real)
}

// resolve is the path of a directory without symlinks.
func (c *cursor) resolve(name string) (string, error) {
	real, links := "", 0
	for todo := name; todo != ""; {
		var part string
		part, todo, _ = strings.Cut(todo, "/")
		switch {
		case part == "" || part == ".":
			continue
		case part == ".." && real == "":
			return "", errEscapes
		case part == "..":
			real, _ = divide(real)
			continue
		}
		next := join(real, part)
		if lies(c.innermost(), next) {
			real = next
			continue
		}
		target, err := c.step(real, part)
		if err != nil {
			return "", err
		}
		if target == "" {
			real = next
			continue
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		if path.IsAbs(target) {
			return "", errEscapes
		}
		todo = target + "/" + todo
	}
	return real, nil
}

// step goes into a directory, or returns what a symlink says that is there.
func (c *cursor) step(around, name string) (target string, err error) {
	dir, err := c.pin(around)
	if err != nil {
		return "", err
	}
	info, err := dir.Lstat(name)
	if c.makes && errors.Is(err, fs.ErrNotExist) {
		if err := dir.Mkdir(name, 0o755); err != nil {
			return "", err
		}
		info, err = dir.Lstat(name)
	}
	switch {
	case err != nil:
		return "", err
	case info.Mode()&os.ModeSymlink != 0:
		return dir.Readlink(name)
	case !info.IsDir():
		return "", syscall.ENOTDIR
	}
	inner, err := openInner(dir, name, info)
	if err != nil {
		return "", err
	}
	c.keep(join(around, name), inner)
	return "", nil
}

// openInner pins a directory that has been seen in a pinned one, and no other that has taken its place.
func openInner(dir *os.Root, name string, seen os.FileInfo) (*os.Root, error) {
	inner, err := dir.OpenRoot(name + within)
	if err != nil {
		return nil, err
	}
	if info, err := inner.Stat("."); err != nil || !os.SameFile(info, seen) {
		inner.Close()
		return nil, syscall.ENOTDIR
	}
	return inner, nil
}

// pin pins a directory by its path without symlinks.
func (c *cursor) pin(real string) (*os.Root, error) {
	for len(c.kept) > 0 && !lies(real, c.innermost()) {
		c.drop(len(c.kept) - 1)
	}
	if real == "" {
		return c.base, nil
	}
	if len(c.kept) == 0 {
		// Those around it are wanted when what lies in it is done.
		outer := real
		for range maxPinned / 2 {
			outer, _ = divide(outer)
		}
		if outer != "" {
			dir, err := c.base.OpenRoot(outer + within)
			if err != nil {
				return nil, err
			}
			c.keep(outer, dir)
		}
	}
	for c.innermost() != real {
		around, dir := c.innermost(), c.base
		if around != "" {
			dir = c.kept[len(c.kept)-1].dir
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(real[len(around):], "/"), "/")
		inner, err := dir.OpenRoot(name + within)
		if err != nil {
			return nil, err
		}
		c.keep(join(around, name), inner)
	}
	return c.kept[len(c.kept)-1].dir, nil
}

func (c *cursor) innermost() string {
	if len(c.kept) == 0 {
		return ""
	}
	return c.kept[len(c.kept)-1].path
}

func (c *cursor) keep(real string, dir *os.Root) {
	if len(c.kept) == maxPinned {
		c.drop(0)
	}
	c.kept = append(c.kept, pinned{real, dir})
}

func (c *cursor) drop(i int) {
	c.kept[i].dir.Close()
	c.kept = append(c.kept[:i], c.kept[i+1:]...)
}

func (c *cursor) close() {
	for len(c.kept) > 0 {
		c.drop(len(c.kept) - 1)
	}
}

// lies tells whether a path is, or lies below, another one.
func lies(path, around string) bool {
	return path == around || strings.HasPrefix(path, around) && path[len(around)] == '/'
}
