package files

import (
	"cmp"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

// maxPinned bounds the directories that one walk has open, and those whose names it holds, at a time.
const maxPinned = 16

// walk goes through what lies below a directory, each directory before what it holds, siblings by name. It never leaves
// the directory, however the tree is rearranged meanwhile. Its memory does not grow with the size of directories, and
// with their depth by their names alone.
type walk struct {
	space *Space
	base  *os.Root
	// batch is how many names of a directory are read at a time.
	batch int
	// levels are the directories on the way to where the walk is; path is the innermost one's.
	levels []level
	path   []byte
}

type level struct {
	// dir is nil while the directory is not pinned.
	dir *os.Root
	// info is what the directory was when the walk came to it.
	info os.FileInfo
	// length is that of its path, which begins that of those within.
	length int
	// names are the next of its names; isLast tells that there are no more.
	names  []string
	isLast bool
	// past is where names go on; isShown tells that it is known as it is displayed only.
	past    string
	isShown bool
}

// visit is what a walk has come to.
type visit struct {
	// path is relative to the walk's directory.
	path string
	// dir is the pinned directory that it is in, as name. It is valid until the walk goes on.
	dir  *os.Root
	name string
	info os.FileInfo
}

func (s *Space) walk(base *os.Root, batch int) *walk {
	return &walk{space: s, base: base, batch: batch, levels: []level{{}}}
}

// resume makes the walk begin after a path, as it was displayed, and go no deeper than so many levels.
func (w *walk) resume(after string, depth int) error {
	defer w.space.acquire()()
	for part := range strings.SplitSeq(after, "/") {
		top := &w.levels[len(w.levels)-1]
		top.past, top.isShown = part, true
		if len(w.levels) == depth {
			return nil
		}
		if err := w.pin(len(w.levels) - 1); err != nil {
			return err
		}
		name, info, err := directory(top.dir, part)
		if err != nil || info == nil {
			return err
		}
		w.push(name, info)
	}
	return nil
}

// directory finds the directory that is displayed so. Info is nil if there is none.
func directory(dir *os.Root, shown string) (string, os.FileInfo, error) {
	names := []string{shown}
	if strings.ContainsRune(shown, '\uFFFD') {
		var err error
		if names, err = smallest(dir, func(name string) bool { return displayed(name) == shown }, 1); err != nil {
			return "", nil, err
		}
	}
	for _, name := range names {
		if info, err := dir.Lstat(name); err == nil && info.IsDir() {
			return name, info, nil
		}
	}
	return "", nil, nil
}

// close releases what the walk holds.
func (w *walk) close() {
	for len(w.levels) > 0 {
		w.pop()
	}
}

// next goes on to the next entry, and returns io.EOF after the last. What vanishes meanwhile is passed over. After any
// other error the walk can go on; the visit then holds the path that the error is about.
func (w *walk) next() (visit, error) {
	defer w.space.acquire()()
	for len(w.levels) > 0 {
		if err := w.load(); err != nil {
			failed := visit{path: string(w.path)}
			w.pop()
			if isGone(err) {
				continue
			}
			return failed, err
		}
		top := &w.levels[len(w.levels)-1]
		if len(top.names) == 0 {
			w.pop()
			continue
		}
		name := top.names[0]
		top.names = top.names[1:]
		top.past, top.isShown = name, false
		v := visit{path: join(string(w.path), name), dir: top.dir, name: name}
		info, err := top.dir.Lstat(name)
		if isGone(err) {
			continue
		}
		v.info = info
		return v, err
	}
	return visit{}, io.EOF
}

// enter makes the walk go through the directory that it has come to last, before it goes on.
func (w *walk) enter(v visit) { w.push(v.name, v.info) }

func (w *walk) push(name string, info os.FileInfo) {
	w.path = append(w.path[:0], join(string(w.path), name)...)
	w.levels = append(w.levels, level{length: len(w.path), info: info})
	if far := len(w.levels) - 1 - maxPinned; far >= 0 {
		w.levels[far].release()
	}
}

func (w *walk) pop() {
	last := len(w.levels) - 1
	w.levels[last].release()
	w.levels = w.levels[:last]
	if last > 0 {
		w.path = w.path[:w.levels[last-1].length]
	}
}

// release forgets what can be had again.
func (l *level) release() {
	if l.dir != nil {
		l.dir.Close()
	}
	l.dir, l.names, l.isLast = nil, nil, false
}

// load makes sure that the innermost directory is pinned, and its next names known if there are any.
func (w *walk) load() error {
	top := len(w.levels) - 1
	if err := w.pin(top); err != nil {
		return err
	}
	l := &w.levels[top]
	if len(l.names) > 0 || l.isLast {
		return nil
	}
	names, err := smallest(l.dir, l.follows, w.batch)
	l.names, l.isLast = names, len(names) < w.batch
	return err
}

// pin opens a level's directory, and those around it that will be needed next.
func (w *walk) pin(n int) error {
	first := n
	for first > 0 && first > n-maxPinned/2 && w.levels[first].dir == nil {
		first--
	}
	for i := first; i <= n; i++ {
		if w.levels[i].dir != nil {
			continue
		}
		around, path := w.base, "."
		switch {
		case i > 0 && w.levels[i-1].dir != nil:
			around, path = w.levels[i-1].dir, strings.TrimPrefix(string(w.path[w.levels[i-1].length:w.levels[i].length]), "/")
		case i > 0:
			path = string(w.path[:w.levels[i].length])
		}
		dir, err := open(around, path, w.levels[i].info)
		if err != nil {
			return err
		}
		w.levels[i].dir = dir
	}
	return nil
}

// open pins a directory; seen is nil for any.
func open(around *os.Root, path string, seen os.FileInfo) (*os.Root, error) {
	if seen == nil {
		return around.OpenRoot(path + within)
	}
	return openInner(around, path, seen)
}

// follows tells whether a name is one that the walk has yet to come to.
func (l *level) follows(name string) bool {
	if l.isShown {
		return displayed(name) > l.past
	}
	return l.past == "" || order(name, l.past) > 0
}

// order is that of names. Those that are displayed alike have one too.
func order(a, b string) int {
	return cmp.Or(strings.Compare(displayed(a), displayed(b)), strings.Compare(a, b))
}

// smallest returns the first n of the names that are wanted. It never holds more than a few times n, however large the
// directory is.
func smallest(dir *os.Root, isWanted func(string) bool, n int) ([]string, error) {
	f, err := openSelf(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		batch, err := f.Readdirnames(namesAtOnce)
		for _, name := range batch {
			if isWanted(name) {
				names = append(names, name)
			}
		}
		if len(names) > 2*n+namesAtOnce || err != nil {
			slices.SortFunc(names, order)
			clear(names[min(n, len(names)):])
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

// isGone tells that an entry is not there, or no longer what it was a moment ago.
func isGone(err error) bool {
	if err == nil {
		return false
	}
	err = cause(err)
	for _, gone := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP} {
		if errors.Is(err, gone) {
			return true
		}
	}
	text := err.Error()
	return text == escapesText || text == noDirectoryText
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
