package files

import (
	"io"
	"os"
	"strings"

	"agentic-isolation/guest/internal/fault"
)

// copyAtOnce is how much of a file is copied in one turn at the kernel.
const copyAtOnce = 4 << 20

// namesToCopy is how many of a directory's names a walk that copies or packs reads at a time.
const namesToCopy = 8 << 10

// copying is one copy under way.
type copying struct {
	space *Space
	stop  <-chan struct{}
	// from and to are the places of the source and the target.
	from, to place
}

// Copy copies a file, a symlink itself, or with recursive a directory, so that it appears at the target as a whole or
// not at all. Without overwrite, what exists at the target is left alone; a directory there always is. Once stop is
// closed it ends, without a trace, with fault.Cancelled.
func (s *Space) Copy(from, to string, overwrite, recursive bool, stop <-chan struct{}) (Entry, error) {
	source, sourceDir, sourceBase, err := s.origin(from)
	if err != nil {
		return Entry{}, err
	}
	defer sourceDir.Close()
	target, targetDir, targetBase, err := s.destination(to, overwrite)
	if err != nil {
		return Entry{}, err
	}
	defer targetDir.Close()
	c := &copying{space: s, stop: stop, from: source, to: target}
	info, err := sourceDir.Lstat(sourceBase)
	if err != nil {
		return Entry{}, problem(source, err)
	}
	if err := mustBeAsSpelt(target, info); err != nil {
		return Entry{}, err
	}
	if info.IsDir() && !recursive {
		return Entry{}, fault.New(fault.IsADirectory, "%q is a directory; copy it with recursive", source.shown)
	}
	if info.IsDir() && strings.HasPrefix(target.shown+"/", strings.TrimSuffix(source.shown, "/")+"/") {
		return Entry{}, c.intoItself()
	}
	temp := temporaryName()
	if err := c.entry(sourceDir, sourceBase, info, targetDir, temp); err != nil {
		c.discard(targetDir, temp)
		return Entry{}, err
	}
	defer s.acquire()()
	if err := rename(targetDir, temp, targetDir, targetBase, overwrite && !info.IsDir()); err != nil {
		_ = RemoveAll(targetDir, temp)
		return Entry{}, problem(target, err)
	}
	made, err := targetDir.Lstat(targetBase)
	if err != nil {
		return Entry{}, problem(target, err)
	}
	e := entryOf(target.shown, made)
	if e.Type == "symlink" {
		e.Target, _ = targetDir.Readlink(targetBase)
	}
	return e, nil
}

// origin pins the directory that what is to be copied is an entry of.
func (s *Space) origin(p string) (place, *os.Root, string, error) {
	defer s.acquire()()
	at, dir, base, err := s.parent(p)
	if err == nil && at.namesDirectory() {
		dir.Close()
	}
	if err == nil && at.namesDirectory() || fault.Is(err, fault.BadRequest) && at.name != "" {
		// The root, or a path that ends with a slash or a dot: it is about what it leads to, and not about an entry.
		if dir, err = s.tree.OpenDir(at.name); err == nil {
			return at, dir, ".", nil
		}
		err = problem(at, err)
	}
	return at, dir, base, err
}

// destination pins the directory that the copy is to be an entry of.
func (s *Space) destination(p string, overwrite bool) (place, *os.Root, string, error) {
	defer s.acquire()()
	at, dir, base, info, err := s.follow(p)
	if fault.Is(err, fault.BadRequest) && at.name != "" {
		err = fault.New(fault.FileExists, "%q exists and is a directory", at.shown)
	}
	if err != nil {
		return at, nil, "", err
	}
	if info != nil && (!overwrite || info.IsDir()) {
		dir.Close()
		return at, nil, "", fault.New(fault.FileExists, "%q exists already", at.shown)
	}
	return at, dir, base, nil
}

// entry copies what has been found at name in a pinned directory.
func (c *copying) entry(dir *os.Root, name string, info os.FileInfo, to *os.Root, as string) error {
	if err := c.isStopped(); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return c.directory(dir, name, info, to, as)
	case info.Mode().IsRegular():
		return c.file(dir, name, to, as)
	case info.Mode()&os.ModeSymlink != 0:
		defer c.space.acquire()()
		link, err := dir.Readlink(name)
		if err != nil {
			return problem(c.from, err)
		}
		return problem(c.to, to.Symlink(link, as))
	}
	return mustBeRegular(c.from, info)
}

// isStopped returns an error once nobody wants the copy any more.
func (c *copying) isStopped() error {
	select {
	case <-c.stop:
		return fault.New(fault.Cancelled, "the copy was cancelled")
	default:
		return nil
	}
}

func (c *copying) file(dir *os.Root, name string, to *os.Root, as string) error {
	in, out, mode, err := c.open(dir, name, to, as)
	if err != nil {
		return err
	}
	defer in.Close()
	defer out.Close()
	for {
		n, err := c.part(in, out)
		if err != nil {
			return problem(c.to, err)
		}
		if n < copyAtOnce {
			break
		}
		if err := c.isStopped(); err != nil {
			return err
		}
	}
	defer c.space.acquire()()
	if err := out.Chmod(mode); err != nil {
		return problem(c.to, err)
	}
	return problem(c.to, out.Close())
}

func (c *copying) part(in, out *os.File) (int64, error) {
	defer c.space.acquire()()
	return io.Copy(out, &io.LimitedReader{R: in, N: copyAtOnce})
}

func (c *copying) open(dir *os.Root, name string, to *os.Root, as string) (in, out *os.File, mode os.FileMode, err error) {
	defer c.space.acquire()()
	in, err = dir.OpenFile(name, openForReading, 0)
	if err != nil {
		return nil, nil, 0, problem(c.from, err)
	}
	info, err := in.Stat()
	if err == nil {
		err = mustBeRegular(c.from, info)
	}
	if err != nil {
		in.Close()
		return nil, nil, 0, problem(c.from, err)
	}
	out, err = to.OpenFile(as, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		in.Close()
		return nil, nil, 0, problem(c.to, err)
	}
	return in, out, info.Mode().Perm(), nil
}

// directory copies a directory and all that lies below it.
func (c *copying) directory(dir *os.Root, name string, info os.FileInfo, to *os.Root, as string) error {
	source, copied, err := c.pin(dir, name, to, as)
	if err != nil {
		return err
	}
	defer source.Close()
	defer copied.Close()
	own, err := copied.Stat(".")
	if err != nil {
		return problem(c.to, err)
	}
	marks := &unsettled{base: copied}
	if err := marks.add("", mark{mode: info.Mode().Perm()}); err != nil {
		return problem(c.to, err)
	}
	w := c.space.walk(source, namesToCopy)
	defer w.close()
	into := &cursor{base: copied}
	defer into.close()
	whole := *c
	for {
		v, err := w.next()
		if err == io.EOF {
			break
		}
		c.from = whole.from.within(v.path)
		if err != nil {
			return problem(c.from, err)
		}
		if os.SameFile(v.info, own) {
			return whole.intoItself()
		}
		if err := c.below(v, into, marks); err != nil && !fault.Is(err, fault.FileNotFound) {
			return err
		}
		if v.info.IsDir() {
			w.enter(v)
		}
	}
	defer c.space.acquire()()
	return problem(c.to, marks.settle())
}

// pin opens the directory to copy, and makes and opens the one to fill.
func (c *copying) pin(dir *os.Root, name string, to *os.Root, as string) (source, copied *os.Root, err error) {
	defer c.space.acquire()()
	if source, err = dir.OpenRoot(name + within); err != nil {
		return nil, nil, problem(c.from, err)
	}
	if err = to.Mkdir(as, access); err == nil {
		copied, err = to.OpenRoot(as + within)
	}
	if err != nil {
		source.Close()
		return nil, nil, problem(c.to, err)
	}
	return source, copied, nil
}

// below copies what a walk has come to.
func (c *copying) below(v visit, into *cursor, marks *unsettled) error {
	around, name := divide(v.path)
	dir, err := c.goTo(into, around)
	if err != nil {
		return problem(c.to, err)
	}
	if !v.info.IsDir() {
		return c.entry(v.dir, v.name, v.info, dir, name)
	}
	if err := c.isStopped(); err != nil {
		return err
	}
	defer c.space.acquire()()
	mode := v.info.Mode().Perm()
	if err := dir.Mkdir(name, mode|access); err != nil {
		return problem(c.to, err)
	}
	if mode&access != access {
		return problem(c.to, marks.add(v.path, mark{mode: mode}))
	}
	return problem(c.to, dir.Chmod(name, mode)) // the umask has taken bits away
}

func (c *copying) goTo(into *cursor, path string) (*os.Root, error) {
	defer c.space.acquire()()
	return into.at(path)
}

func (c *copying) intoItself() error {
	return fault.New(fault.BadRequest, "%q lies in %q: a directory cannot be copied into itself", c.to.shown, c.from.shown)
}

// discard removes what has been copied.
func (c *copying) discard(dir *os.Root, temp string) {
	defer c.space.acquire()()
	_ = RemoveAll(dir, temp)
}
