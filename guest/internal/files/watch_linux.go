package files

import (
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

const watchMask = syscall.IN_CREATE | syscall.IN_MODIFY | syscall.IN_DELETE | syscall.IN_MOVE | syscall.IN_ATTRIB |
	syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_ONLYDIR | syscall.IN_EXCL_UNLINK

// Watch is a directory that is being watched, with inotify(7).
type Watch struct {
	// Entry is the directory.
	Entry Entry

	space       *Space
	at          place
	isRecursive bool
	// base is what the directory is known by. It is not kept open: the kernel does not tell of its removal before it
	// is closed.
	base     os.FileInfo
	inotify  *os.File
	calls    syscall.RawConn
	root     *watched
	dirs     map[int32]*watched
	listener Listener
	// batch counts the reads; fresh are the directories with names that were told before the kernel's events.
	batch      int
	fresh      []*watched
	freshCount int
	// last is the change told last, if nothing has been flushed since.
	last Change
	// unread are events that have been read ahead.
	unread []event
	buffer [eventsAtOnce]byte
}

// Watch begins to watch the directory at p, with recursive those below it as well. The caller closes the watch.
func (s *Space) Watch(p string, recursive bool) (*Watch, error) {
	at, err := s.locate(p)
	if err != nil {
		return nil, err
	}
	dir, err := s.pinDirectory(at)
	if err != nil {
		return nil, problem(at, err)
	}
	defer dir.Close()
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil, watchProblem(at, err)
	}
	w := &Watch{
		space: s, at: at, isRecursive: recursive, inotify: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]*watched{},
	}
	if err = w.begin(dir); err != nil {
		w.Close()
		return nil, watchProblem(at, err)
	}
	w.Entry = entryOf(at.shown, w.base)
	return w, nil
}

func (s *Space) pinDirectory(at place) (*os.Root, error) {
	defer s.acquire()()
	return s.tree.OpenDir(at.name)
}

func (w *Watch) begin(dir *os.Root) (err error) {
	if w.calls, err = w.inotify.SyscallConn(); err != nil {
		return err
	}
	self, err := openSelf(dir)
	if err != nil {
		return err
	}
	defer self.Close()
	if w.base, err = self.Stat(); err != nil {
		return err
	}
	if w.root, err = w.add(nil, "", self, w.base); err != nil {
		return err
	}
	return w.scan(dir, w.root, false)
}

// Close ends the watch, also one that runs.
func (w *Watch) Close() { w.inotify.Close() }

// errGone tells that the directory itself has gone.
var errGone = errors.New("the directory has gone")

// Run tells what changes, until the directory itself has gone, the listener fails or the watch is closed, which is
// os.ErrClosed. It is called once.
func (w *Watch) Run(listener Listener) error {
	w.listener = listener
	switch err := w.run(); {
	case err == errGone:
		if err := w.tell(Change{Kind: "removed", Path: w.at.shown, IsDirectory: true}); err != nil {
			return err
		}
		return listener.Flush()
	case errors.Is(err, os.ErrClosed):
		return os.ErrClosed
	default:
		return watchProblem(w.at, err)
	}
}

func (w *Watch) run() error {
	for {
		isDrained, err := w.read()
		if err != nil {
			return err
		}
		for len(w.unread) > 0 {
			e := w.unread[0]
			w.unread = w.unread[1:]
			if err := w.handle(e); err != nil {
				return err
			}
		}
		if isDrained {
			w.forgetFresh()
		}
		w.last = Change{}
		if err := w.listener.Flush(); err != nil {
			return err
		}
	}
}

// handle tells what an event of the kernel means, and keeps the watches complete.
func (w *Watch) handle(e event) error {
	if e.mask&syscall.IN_Q_OVERFLOW != 0 {
		if err := w.tell(Change{Kind: Overflow}); err != nil {
			return err
		}
		return w.rescan()
	}
	dir := w.dirs[e.watch]
	if dir == nil {
		return nil
	}
	if e.name == "" {
		return w.handleSelf(dir, e)
	}
	isDir := e.mask&syscall.IN_ISDIR != 0
	shown := w.shown(dir, e.name)
	isHidden := strings.HasPrefix(e.name, temporary)
	switch {
	case e.mask&syscall.IN_MOVED_FROM != 0:
		return w.handleMove(dir, e, isDir)
	case isHidden:
		return nil
	case e.mask&(syscall.IN_CREATE|syscall.IN_MOVED_TO) != 0:
		return w.appeared(dir, e.name, isDir)
	case e.mask&syscall.IN_MODIFY != 0:
		return w.tell(Change{Kind: "modified", Path: shown, IsDirectory: isDir})
	case e.mask&syscall.IN_ATTRIB != 0:
		return w.tell(Change{Kind: "attributes", Path: shown, IsDirectory: isDir})
	case e.mask&syscall.IN_DELETE != 0:
		return w.disappeared(dir, e.name, isDir)
	}
	return nil
}

// handleSelf handles what has happened to a directory itself. Only that of the watch has no other event that tells of
// it.
func (w *Watch) handleSelf(dir *watched, e event) error {
	switch {
	case e.mask&syscall.IN_IGNORED != 0:
		w.drop(dir)
		if dir == w.root {
			return errGone
		}
	case dir != w.root:
	case e.mask&(syscall.IN_DELETE_SELF|syscall.IN_MOVE_SELF|syscall.IN_UNMOUNT) != 0:
		return errGone
	case e.mask&syscall.IN_ATTRIB != 0:
		return w.tell(Change{Kind: "attributes", Path: w.at.shown, IsDirectory: true})
	}
	return nil
}

// handleMove finds out where an entry has been moved to.
func (w *Watch) handleMove(dir *watched, from event, isDir bool) error {
	to, isWithin, err := w.counterpart(from)
	if err != nil {
		return err
	}
	target := w.dirs[to.watch]
	isHidden := strings.HasPrefix(from.name, temporary)
	switch {
	case isWithin && target != nil && !isHidden && !strings.HasPrefix(to.name, temporary):
		return w.moved(dir, from.name, target, to.name, isDir)
	case !isHidden:
		if err := w.disappeared(dir, from.name, isDir); err != nil {
			return err
		}
	}
	if isWithin && target != nil && !strings.HasPrefix(to.name, temporary) {
		return w.appeared(target, to.name, isDir)
	}
	return nil
}

func (w *Watch) moved(from *watched, name string, to *watched, as string, isDir bool) error {
	w.outdate(from, name)
	w.outdate(to, as)
	node := from.within[name]
	if node != nil && w.isAt(from, name, node) {
		// It has come there after what the event is about, and a scan was faster than the events to come.
		return w.appeared(to, as, isDir)
	}
	change := Change{Kind: "moved", From: w.shown(from, name), Path: w.shown(to, as), IsDirectory: isDir}
	if old := to.within[as]; old != nil && old != node {
		w.drop(old)
	}
	if node != nil {
		w.place(node, to, as)
	}
	if err := w.tell(change); err != nil {
		return err
	}
	if isDir && node == nil {
		return w.explore(to, as)
	}
	return nil
}

func (w *Watch) appeared(dir *watched, name string, isDir bool) error {
	if w.outdate(dir, name) {
		return nil
	}
	if err := w.tell(Change{Kind: "created", Path: w.shown(dir, name), IsDirectory: isDir}); err != nil || !isDir {
		return err
	}
	return w.explore(dir, name)
}

func (w *Watch) disappeared(dir *watched, name string, isDir bool) error {
	w.outdate(dir, name)
	change := Change{Kind: "removed", Path: w.shown(dir, name), IsDirectory: isDir}
	if node := dir.within[name]; node != nil {
		w.drop(node)
	}
	return w.tell(change)
}

// tell tells a change, unless it says what the one before it has said.
func (w *Watch) tell(c Change) error {
	if c == w.last && c.Kind == "modified" {
		return nil
	}
	w.last = c
	return w.listener.Tell(c)
}

func (w *Watch) shown(dir *watched, name string) string {
	return path.Join(w.at.shown, displayed(join(dir.path(), name)))
}

// watchProblem is problem for the errors of inotify.
func watchProblem(at place, err error) error {
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENOMEM):
		return fault.New(fault.WatchLimit, "%q: the kernel allows no more watches: %v", at.shown, cause(err))
	}
	return problem(at, err)
}

// inPath is a path of an open file that needs no resolution.
func inPath(fd uintptr) string { return "/proc/self/fd/" + strconv.Itoa(int(fd)) }
