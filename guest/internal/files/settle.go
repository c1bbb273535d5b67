package files

import (
	"os"
	"slices"
	"strings"
	"time"
)

// maxUnsettled bounds what is remembered of directories.
const maxUnsettled = 1 << 16

// access is what the owner of a directory needs to fill it.
const access = 0o700

// unsettled are directories whose modes and times come last: what is put into them needs the one and changes the other.
type unsettled struct {
	base  *os.Root
	marks map[string]mark
}

// mark is what a directory is to have. No time is any.
type mark struct {
	mode os.FileMode
	time time.Time
}

// add remembers a directory. Beyond the bound all that are remembered get what they are to have at once: what is put
// into them later may be refused, and changes their times.
func (u *unsettled) add(path string, m mark) error {
	if len(u.marks) >= maxUnsettled {
		if err := u.settle(); err != nil {
			return err
		}
	}
	if u.marks == nil {
		u.marks = map[string]mark{}
	}
	u.marks[path] = m
	return nil
}

// settle gives all directories what they are to have, those within before those around them.
func (u *unsettled) settle() error {
	paths := make([]string, 0, len(u.marks))
	for path := range u.marks {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b, a) })
	around := &cursor{base: u.base}
	defer around.close()
	for _, path := range paths {
		if err := set(around, path, u.marks[path]); err != nil && !isGone(err) {
			return err
		}
	}
	clear(u.marks)
	return nil
}

func set(around *cursor, path string, m mark) error {
	dir, err := around.at(path)
	if err != nil {
		return err
	}
	self, err := openSelf(dir)
	if err != nil {
		return err
	}
	defer self.Close()
	if !m.time.IsZero() {
		if err := setTimes(self, m.time); err != nil {
			return err
		}
	}
	return self.Chmod(m.mode)
}

// divide separates a path's last part.
func divide(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
