package files

import (
	"io"
	"os"
	"strings"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

// watched is a directory of a watch.
type watched struct {
	watch  int32
	name   string
	around *watched
	within map[string]*watched
	// info is what it was when it was found.
	info os.FileInfo
	// fresh are names of it that have been told as created, of which the kernel may tell yet.
	fresh map[string]bool
	// batch is when names became fresh, or when the directory was last seen by a scan.
	batch int
}

func (d *watched) path() string {
	if d.around == nil {
		return ""
	}
	return join(d.around.path(), d.name)
}

// add watches an open directory, or finds out that it is watched already and belongs there now.
func (w *Watch) add(around *watched, name string, self *os.File, info os.FileInfo) (*watched, error) {
	var number int
	var failed error
	err := w.calls.Control(func(fd uintptr) {
		number, failed = syscall.InotifyAddWatch(int(fd), inPath(self.Fd()), watchMask)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	node := w.dirs[int32(number)]
	if node == nil {
		if len(w.dirs) >= maxWatched {
			return nil, fault.New(fault.WatchLimit, "%q: more than %d directories cannot be watched at a time", w.at.shown, maxWatched)
		}
		node = &watched{watch: int32(number)}
		w.dirs[node.watch] = node
	}
	node.info = info
	w.place(node, around, name)
	return node, nil
}

// place puts a directory where it has been found.
func (w *Watch) place(node, around *watched, name string) {
	for above := around; above != nil; above = above.around {
		if above == node {
			return // a view of a tree that changes; the kernel's events set it right
		}
	}
	if node == w.root {
		return
	}
	node.leave()
	node.around, node.name = around, name
	if around != nil {
		if around.within == nil {
			around.within = map[string]*watched{}
		}
		around.within[name] = node
	}
}

func (d *watched) leave() {
	if d.around != nil && d.around.within[d.name] == d {
		delete(d.around.within, d.name)
	}
}

// drop stops watching a directory and all below it.
func (w *Watch) drop(node *watched) {
	node.leave()
	for pending := []*watched{node}; len(pending) > 0; {
		last := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for _, inner := range last.within {
			pending = append(pending, inner)
		}
		if w.dirs[last.watch] != last {
			continue
		}
		delete(w.dirs, last.watch)
		w.freshCount -= len(last.fresh)
		last.fresh = nil
		_ = w.calls.Control(func(fd uintptr) { _, _ = syscall.InotifyRmWatch(int(fd), uint32(last.watch)) })
	}
}

// pin opens the directory of the watch again.
func (w *Watch) pin() (*os.Root, error) {
	dir, err := w.space.pinDirectory(w.at)
	if err != nil {
		return nil, errGone
	}
	if info, err := dir.Stat("."); err != nil || !os.SameFile(info, w.base) {
		dir.Close()
		return nil, errGone
	}
	return dir, nil
}

// explore watches a directory that has appeared, and tells what is in it as created.
func (w *Watch) explore(around *watched, name string) error {
	if !w.isRecursive {
		return nil
	}
	dir, err := w.open(around)
	if err != nil {
		return leftOut(err)
	}
	defer dir.Close()
	info, err := dir.Lstat(name)
	if err != nil || !info.IsDir() {
		return leftOut(err)
	}
	node, err := w.enter(around, visit{dir: dir, name: name, info: info})
	if err != nil || node == nil {
		return leftOut(err)
	}
	inner, err := dir.OpenRoot(name + within)
	if err != nil {
		return leftOut(err)
	}
	defer inner.Close()
	return w.scan(inner, node, true)
}

// open pins a directory that is watched.
func (w *Watch) open(d *watched) (*os.Root, error) {
	base, err := w.pin()
	if err != nil || d == w.root {
		return base, err
	}
	defer base.Close()
	return base.OpenRoot(d.path() + within)
}

// isAt tells whether a directory is to be found under a name.
func (w *Watch) isAt(around *watched, name string, node *watched) bool {
	dir, err := w.open(around)
	if err != nil {
		return false
	}
	defer dir.Close()
	info, err := dir.Lstat(name)
	return err == nil && os.SameFile(info, node.info)
}

// leftOut is nil for the errors of directories that have gone again, or that may not be read.
func leftOut(err error) error {
	if isLeftOut(err) {
		return nil
	}
	return err
}

// enter watches a directory that has been found. It returns none for one that is no longer the same.
func (w *Watch) enter(around *watched, v visit) (*watched, error) {
	defer w.space.acquire()()
	self, err := v.dir.OpenFile(v.name+within, openDirectory, 0)
	if err != nil {
		return nil, err
	}
	defer self.Close()
	if info, err := self.Stat(); err != nil || !os.SameFile(info, v.info) {
		return nil, err
	}
	return w.add(around, v.name, self, v.info)
}

// scan watches all directories below one that is watched, and tells, if asked to, what is there as created.
func (w *Watch) scan(dir *os.Root, node *watched, isTold bool) error {
	node.batch = w.batch
	if !w.isRecursive {
		return nil
	}
	walk := w.space.walk(dir, namesToCopy)
	defer walk.close()
	// on are the directories on the way, by their depth.
	on := []*watched{node}
	for {
		v, err := walk.next()
		if err == io.EOF {
			return nil
		}
		if isLeftOut(err) {
			continue
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(v.name, temporary) {
			continue
		}
		on = on[:len(walk.levels)]
		around := on[len(on)-1]
		if isTold {
			w.freshen(around, v.name)
			if err := w.tell(Change{Kind: "created", Path: w.shown(around, v.name), IsDirectory: v.info.IsDir()}); err != nil {
				return err
			}
		}
		if !v.info.IsDir() {
			continue
		}
		inner, err := w.enter(around, v)
		if isLeftOut(err) || err == nil && inner == nil {
			continue
		}
		if err != nil {
			return err
		}
		inner.batch = w.batch
		on = append(on, inner)
		walk.enter(v)
	}
}

// rescan makes the watches complete again after events were lost.
func (w *Watch) rescan() error {
	base, err := w.pin()
	if err != nil {
		return err
	}
	defer base.Close()
	// Whatever is not found by now has gone.
	w.batch++
	if err := w.scan(base, w.root, false); err != nil {
		return err
	}
	for _, node := range w.dirs {
		if node.batch != w.batch && node != w.root {
			w.drop(node)
		}
	}
	return nil
}

// freshen remembers that a name was told as created. Too many are told twice.
func (w *Watch) freshen(dir *watched, name string) {
	if w.freshCount >= maxFresh {
		return
	}
	if dir.fresh == nil {
		dir.fresh = map[string]bool{}
		w.fresh = append(w.fresh, dir)
	}
	if !dir.fresh[name] {
		dir.fresh[name] = true
		w.freshCount++
	}
}

// outdate makes a name that was fresh one like others.
func (w *Watch) outdate(dir *watched, name string) (wasFresh bool) {
	if !dir.fresh[name] {
		return false
	}
	delete(dir.fresh, name)
	w.freshCount--
	return true
}

// forgetFresh forgets the names that became so before the last read, which has read all that the kernel had to tell.
func (w *Watch) forgetFresh() {
	kept := w.fresh[:0]
	for _, dir := range w.fresh {
		switch {
		case dir.fresh == nil:
		case dir.batch < w.batch:
			w.freshCount -= len(dir.fresh)
			dir.fresh = nil
		default:
			kept = append(kept, dir)
		}
	}
	clear(w.fresh[len(kept):])
	w.fresh = kept
}
