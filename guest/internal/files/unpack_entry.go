package files

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

// directory makes a directory, or takes the one that is there.
func (u *unpacking) directory(name string, h *tar.Header) error {
	defer u.space.acquire()()
	at := u.at.within(name)
	mode := os.FileMode(h.Mode) & MaxMode
	if name != "" {
		outer, base := divide(name)
		dir, err := u.around.at(outer)
		if err == nil {
			err = u.mkdir(dir, name, base, mode)
		}
		if err != nil {
			return problem(at, err)
		}
	}
	u.summary.Directories++
	return problem(at, u.marks.add(name, mark{mode: mode, time: h.ModTime}))
}

func (u *unpacking) mkdir(dir *os.Root, name, base string, mode os.FileMode) error {
	err := dir.Mkdir(base, mode|access)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	// There may be a symlink to one.
	made, err := u.around.at(name)
	if err != nil {
		return err
	}
	info, err := made.Stat(".")
	if err != nil || info.Mode().Perm()&access == access {
		return err
	}
	return made.Chmod(".", info.Mode().Perm()|access)
}

// put moves what has been made under the temporary name into its place.
func (u *unpacking) put(dir *os.Root, base string) error {
	err := dir.Rename(u.temp, base)
	if errors.Is(err, os.ErrExist) {
		return syscall.EISDIR
	}
	return err
}

func (u *unpacking) file(name string, h *tar.Header) error {
	chunk := contents.Get().(*[contentAtOnce]byte)
	defer contents.Put(chunk)
	// What is awaited is awaited without a turn at the kernel, and most files are read before they are made.
	left := h.Size
	first, err := u.read(chunk[:], left)
	if err != nil {
		return badArchive(name, err)
	}
	left -= int64(len(first))
	outer, base := divide(name)
	dir, f, err := u.begin(outer, first, left == 0, base, h)
	if err != nil || left == 0 {
		return u.counted(name, h.Size, err)
	}
	for left > 0 && err == nil {
		var next []byte
		if next, err = u.read(chunk[:], left); err != nil {
			err = badArchive(name, err)
			break
		}
		left -= int64(len(next))
		err = u.write(f, next)
	}
	return u.counted(name, h.Size, u.finish(dir, f, base, h, err))
}

// read reads as much of an entry's content as b holds.
func (u *unpacking) read(b []byte, left int64) ([]byte, error) {
	n, err := io.ReadFull(u.archive, b[:min(left, int64(len(b)))])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return b[:n], err
}

func (u *unpacking) counted(name string, size int64, err error) error {
	if err != nil {
		return problem(u.at.within(name), err)
	}
	u.remember(name)
	u.summary.Files++
	u.summary.Bytes += size
	return nil
}

// begin makes a file with its first bytes, and finishes it if they are all.
func (u *unpacking) begin(outer string, content []byte, isAll bool, base string, h *tar.Header) (*os.Root, *os.File, error) {
	defer u.space.acquire()()
	dir, err := u.around.at(outer)
	if err != nil {
		return nil, nil, err
	}
	f, err := dir.OpenFile(u.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if len(content) > 0 {
		_, err = f.Write(content)
	}
	if isAll || err != nil {
		return nil, nil, u.complete(dir, f, base, h, err)
	}
	return dir, f, nil
}

func (u *unpacking) write(f *os.File, b []byte) error {
	defer u.space.acquire()()
	_, err := f.Write(b)
	return err
}

func (u *unpacking) finish(dir *os.Root, f *os.File, base string, h *tar.Header, err error) error {
	defer u.space.acquire()()
	return u.complete(dir, f, base, h, err)
}

// complete puts a file that has all its content into its place, or removes it if there was an error.
func (u *unpacking) complete(dir *os.Root, f *os.File, base string, h *tar.Header, err error) error {
	if err == nil {
		err = f.Chmod(os.FileMode(h.Mode) & MaxMode)
	}
	if err == nil {
		err = setTimes(f, h.ModTime)
	}
	// Some file systems report a full disk only here.
	if failed := f.Close(); err == nil {
		err = failed
	}
	if err == nil {
		err = u.put(dir, base)
	}
	if err != nil {
		_ = dir.Remove(u.temp)
	}
	return err
}

func (u *unpacking) symlink(name string, h *tar.Header) error {
	defer u.space.acquire()()
	if h.Linkname == "" {
		return fault.New(fault.BadArchive, "%s is a symlink to nothing", shorten(name))
	}
	at := u.at.within(name)
	outer, base := divide(name)
	dir, err := u.around.at(outer)
	if err != nil {
		return problem(at, err)
	}
	if err := dir.Symlink(h.Linkname, u.temp); err != nil {
		return problem(at, err)
	}
	err = setLinkTimes(dir, u.temp, h.ModTime)
	if err == nil {
		err = u.put(dir, base)
	}
	if err != nil {
		_ = dir.Remove(u.temp)
		return problem(at, err)
	}
	u.remember(name)
	u.summary.Symlinks++
	return nil
}

// hardLink makes another name of a file that the archive has held before.
func (u *unpacking) hardLink(name string, h *tar.Header) error {
	defer u.space.acquire()()
	target, err := entryName(h.Linkname)
	if err != nil {
		return err
	}
	if !u.knows(target) {
		return fault.New(fault.BadArchive, "%s is a hard link to %s, which is no earlier file of the archive",
			shorten(name), shorten(h.Linkname))
	}
	if target == name {
		return nil
	}
	at := u.at.within(name)
	outer, base := divide(name)
	if err := u.link(target, outer); err != nil {
		return problem(at, err)
	}
	dir, err := u.around.at(outer)
	if err != nil {
		return problem(at, err)
	}
	err = u.put(dir, base)
	// Between two names of one file, a rename leaves both.
	_ = dir.Remove(u.temp)
	if err != nil {
		return problem(at, err)
	}
	u.remember(name)
	u.summary.Files++
	return nil
}

// link gives a file another name, the temporary one in a directory.
func (u *unpacking) link(target, outer string) error {
	source, base := divide(target)
	source, err := u.around.resolve(source)
	if err != nil {
		return err
	}
	if outer, err = u.around.resolve(outer); err != nil {
		return err
	}
	return u.base.Link(join(source, base), join(outer, u.temp))
}
