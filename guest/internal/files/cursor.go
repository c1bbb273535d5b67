package files

import (
	"os"
	"strings"
)

// cursor goes about in the directories below a base. It keeps some of those around the last one, which are often wanted
// next.
type cursor struct {
	base *os.Root
	// kept are such that each lies in the one before.
	kept []pinned
}

type pinned struct {
	path string
	dir  *os.Root
}

// at pins a directory. It is valid until the next call.
func (c *cursor) at(path string) (*os.Root, error) {
	for len(c.kept) > 0 && !lies(path, c.kept[len(c.kept)-1].path) {
		c.drop(len(c.kept) - 1)
	}
	if path == "" {
		return c.base, nil
	}
	if len(c.kept) == 0 {
		// Those around it are wanted when what lies in it is done.
		outer := path
		for range maxPinned / 2 {
			outer, _ = divide(outer)
		}
		if outer != "" {
			if err := c.open(outer); err != nil {
				return nil, err
			}
		}
	}
	for {
		around := c.innermost()
		if around == path {
			return c.kept[len(c.kept)-1].dir, nil
		}
		rest := strings.TrimPrefix(path[len(around):], "/")
		first, _, _ := strings.Cut(rest, "/")
		if err := c.open(join(around, first)); err != nil {
			return nil, err
		}
	}
}

func (c *cursor) innermost() string {
	if len(c.kept) == 0 {
		return ""
	}
	return c.kept[len(c.kept)-1].path
}

// open keeps one more directory.
func (c *cursor) open(path string) error {
	var dir *os.Root
	var err error
	around := c.innermost()
	if around != "" {
		dir, err = c.kept[len(c.kept)-1].dir.OpenRoot(path[len(around)+1:] + within)
	}
	if around == "" || err != nil {
		// A symlink may lead out of that directory and stay below the base.
		dir, err = c.base.OpenRoot(path + within)
	}
	if err != nil {
		return err
	}
	if len(c.kept) == maxPinned {
		c.drop(0)
	}
	c.kept = append(c.kept, pinned{path, dir})
	return nil
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
