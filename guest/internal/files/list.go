package files

import (
	"io"
	"path"

	"agentic-isolation/guest/internal/fault"
)

const (
	// MaxEntries is the most that one listing returns.
	MaxEntries = 1000
	// MaxDepth is the most levels that one listing goes down.
	MaxDepth    = 1000
	namesAtOnce = 512
	// maxListing bounds a listing's size in JSON: a frame must hold it, and one more entry.
	maxListing = 384 << 10
	entrySize  = 200
	// maxEntryPath bounds the paths of directories that a listing goes into.
	maxEntryPath = 16 << 10
)

// Listing is a page of a directory's entries.
type Listing struct {
	Entries []Entry `json:"entries"`
	More    bool    `json:"more"`
	// Next is what the next page comes after.
	Next string `json:"next,omitempty"`
}

// List describes up to limit entries below the directory at p that follow after, which is a path relative to it, and
// goes depth levels down.
func (s *Space) List(p, after string, limit, depth int) (Listing, error) {
	at, w, err := s.walkAt(p, limit+1)
	if err != nil {
		return Listing{}, err
	}
	defer w.base.Close()
	defer w.close()
	if after != "" {
		if err := w.resume(after, depth); err != nil && !isLeftOut(err) {
			return Listing{}, problem(at, err)
		}
	}
	page := Listing{Entries: []Entry{}}
	for size := 0; ; {
		v, err := w.next()
		if err == io.EOF {
			page.Next = ""
			return page, nil
		}
		if isLeftOut(err) {
			continue
		}
		if err != nil {
			return Listing{}, problem(at.within(v.path), err)
		}
		if len(page.Entries) == limit || size > maxListing {
			page.More = true
			return page, nil
		}
		e := v.entry(at)
		page.Entries = append(page.Entries, e)
		page.Next = displayed(v.path)
		size += entrySize + encodedSize(e.Name) + encodedSize(e.Path) + encodedSize(e.Target)
		if v.info.IsDir() && len(w.levels) < depth && len(v.path) < maxEntryPath {
			w.enter(v)
		}
	}
}

// walkAt begins a walk through the directory at p. The caller closes it and its base.
func (s *Space) walkAt(p string, batch int) (place, *walk, error) {
	at, err := s.locate(p)
	if err != nil {
		return at, nil, err
	}
	defer s.acquire()()
	base, err := s.tree.OpenDir(at.name)
	if err != nil {
		return at, nil, problem(at, err)
	}
	return at, s.walk(base, batch), nil
}

// entry describes what a walk through a place has come to.
func (v visit) entry(at place) Entry {
	e := entryOf(path.Join(at.shown, displayed(v.path)), v.info)
	e.Name = displayed(v.name)
	if e.Type == "symlink" {
		e.Target, _ = v.dir.Readlink(v.name)
	}
	return e
}

// within is a place below another one.
func (at place) within(p string) place {
	return place{name: join(at.name, p), shown: path.Join(at.shown, displayed(p))}
}

// isLeftOut tells whether a listing passes over an entry for an error's sake.
func isLeftOut(err error) bool {
	return isGone(err) || err != nil && fault.Is(problem(place{}, err), fault.PermissionDenied)
}

// encodedSize bounds the size of a string in JSON.
func encodedSize(text string) int {
	size := len(text)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			size += 5
		} else if c == '"' || c == '\\' {
			size++
		}
	}
	return size
}
