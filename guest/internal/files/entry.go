package files

import (
	"os"
	"path"
	"strings"
)

// Entry describes a file.
type Entry struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Type    string `json:"type"`
	Size    int64  `json:"size"`
	Mode    uint32 `json:"mode"`
	ModTime int64  `json:"mtime_unix_ns"`
	Target  string `json:"target,omitempty"`
}

func entryOf(shown string, info os.FileInfo) Entry {
	e := Entry{
		Name: path.Base(shown), Path: shown, Type: "other",
		Size: info.Size(), Mode: uint32(info.Mode().Perm()), ModTime: info.ModTime().UnixNano(),
	}
	switch {
	case info.Mode().IsRegular():
		e.Type = "file"
	case info.IsDir():
		e.Type = "directory"
	case info.Mode()&os.ModeSymlink != 0:
		e.Type = "symlink"
	}
	return e
}

// Stat describes the file at p, or that which a symlink at p leads to.
func (s *Space) Stat(p string, follow bool) (Entry, error) {
	at, err := s.locate(p)
	if err != nil {
		return Entry{}, err
	}
	defer s.acquire()()
	return s.stat(at, follow)
}

func (s *Space) stat(at place, follow bool) (Entry, error) {
	look := s.tree.Lstat
	if follow {
		look = s.tree.Stat
	}
	info, err := look(at.name)
	if err != nil {
		return Entry{}, problem(at, err)
	}
	e := entryOf(at.shown, info)
	if e.Type == "symlink" {
		e.Target, _ = s.tree.Readlink(at.name)
	}
	return e, nil
}

// displayed is name as JSON carries it. Entries are sorted and compared by it, so that paging ends even among names
// that are not UTF-8.
func displayed(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
