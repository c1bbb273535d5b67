package files

import (
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	// MaxEntries is the most that one listing returns.
	MaxEntries  = 1000
	namesAtOnce = 512
	// maxListing bounds a listing's size in JSON, roughly: a frame must hold it.
	maxListing = 512 << 10
	entrySize  = 160
)

// List describes up to limit entries of the directory at p whose names follow after, and tells whether there are more.
func (s *Space) List(p, after string, limit int) (entries []Entry, more bool, err error) {
	at, err := s.locate(p)
	if err != nil {
		return nil, false, err
	}
	defer s.acquire()()
	dir, err := s.tree.OpenDir(at.name)
	if err != nil {
		return nil, false, problem(at, err)
	}
	defer dir.Close()
	names, err := smallest(dir, after, limit+1)
	if err != nil {
		return nil, false, problem(at, err)
	}
	entries = []Entry{}
	size := 0
	for i, name := range names {
		if i == limit || size > maxListing {
			return entries, true, nil
		}
		info, err := dir.Lstat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, false, problem(at, err)
		}
		e := entryOf(path.Join(at.shown, displayed(name)), info)
		e.Name = displayed(name)
		if e.Type == "symlink" {
			e.Target, _ = dir.Readlink(name)
		}
		entries = append(entries, e)
		// JSON may need six characters for one.
		size += entrySize + 2*(len(e.Name)+len(e.Path)+len(e.Target))
	}
	return entries, false, nil
}

// smallest returns the first n names after the given one. It never holds more than a few times n, however large the
// directory is.
func smallest(dir *os.Root, after string, n int) ([]string, error) {
	f, err := dir.OpenFile(".", openDirectory, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		batch, err := f.Readdirnames(namesAtOnce)
		for _, name := range batch {
			if displayed(name) > after {
				names = append(names, name)
			}
		}
		if len(names) > n+4*namesAtOnce || err != nil {
			slices.SortFunc(names, func(a, b string) int {
				return strings.Compare(displayed(a), displayed(b))
			})
			names = names[:min(n, len(names))]
		}
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
