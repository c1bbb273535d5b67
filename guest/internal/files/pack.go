package files

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path"
	"sync"

	"agentic-isolation/guest/internal/fault"
)

// Summary tells what an archive holds.
type Summary struct {
	// Files counts regular files and hard links.
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	// Skipped counts devices, pipes and sockets, which are left out.
	Skipped int64 `json:"skipped"`
	// Bytes counts those of the files' contents.
	Bytes int64 `json:"bytes"`
}

// Pack is a directory that is being packed.
type Pack struct {
	// Entry is the directory.
	Entry Entry

	space   *Space
	at      place
	walk    *walk
	exclude map[string]bool
	archive *tar.Writer
	summary Summary
}

const contentAtOnce = 64 << 10

var contents = sync.Pool{New: func() any { return new([contentAtOnce]byte) }}

// Pack begins to pack what lies below the directory at p but for the entries that exclude names, by paths relative to
// it. The caller closes the pack.
func (s *Space) Pack(p string, exclude []string) (*Pack, error) {
	at, w, err := s.walkAt(p, namesToCopy)
	if err != nil {
		return nil, err
	}
	info, err := w.base.Stat(".")
	if err != nil {
		w.base.Close()
		return nil, problem(at, err)
	}
	pack := &Pack{Entry: entryOf(at.shown, info), space: s, at: at, walk: w, exclude: make(map[string]bool, len(exclude))}
	for _, name := range exclude {
		pack.exclude[path.Clean(name)] = true
	}
	return pack, nil
}

// Close releases what the pack holds.
func (p *Pack) Close() {
	p.walk.close()
	p.walk.base.Close()
}

// Stream writes the tar stream. What vanishes meanwhile is left out. An error of out is returned as it is.
func (p *Pack) Stream(out io.Writer) (Summary, error) {
	p.archive = tar.NewWriter(out)
	for {
		v, err := p.walk.next()
		if err == io.EOF {
			return p.summary, p.archive.Close()
		}
		if err != nil {
			return p.summary, problem(p.at.within(v.path), err)
		}
		if p.exclude[displayed(v.path)] {
			continue
		}
		if err := p.entry(v); err != nil {
			return p.summary, err
		}
		if v.info.IsDir() {
			p.walk.enter(v)
		}
	}
}

func (p *Pack) entry(v visit) error {
	switch {
	case v.info.IsDir():
		p.summary.Directories++
		return p.header(v, v.info, tar.TypeDir, "")
	case v.info.Mode().IsRegular():
		return p.file(v)
	case v.info.Mode()&os.ModeSymlink != 0:
		target, err := p.readlink(v)
		if isGone(err) {
			return nil
		}
		if err != nil {
			return problem(p.at.within(v.path), err)
		}
		p.summary.Symlinks++
		return p.header(v, v.info, tar.TypeSymlink, target)
	}
	p.summary.Skipped++
	return nil
}

func (p *Pack) header(v visit, info os.FileInfo, kind byte, target string) error {
	h := &tar.Header{
		Typeflag: kind, Name: v.path, Linkname: target, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(),
		Format: tar.FormatPAX,
	}
	switch kind {
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeReg:
		h.Size = info.Size()
	}
	err := p.archive.WriteHeader(h)
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return fault.New(fault.FileSystem, "%.200q cannot be packed: %v", p.at.within(v.path).shown, err)
	}
	return err
}

func (p *Pack) file(v visit) error {
	at := p.at.within(v.path)
	f, info, err := p.open(v)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return problem(at, err)
	}
	defer f.Close()
	if !info.Mode().IsRegular() {
		p.summary.Skipped++
		return nil
	}
	if err := p.header(v, info, tar.TypeReg, ""); err != nil {
		return err
	}
	p.summary.Files++
	p.summary.Bytes += info.Size()
	return p.content(at, f, info.Size())
}

// content packs so many bytes of a file, whatever becomes of it meanwhile.
func (p *Pack) content(at place, f *os.File, size int64) error {
	chunk := contents.Get().(*[contentAtOnce]byte)
	defer contents.Put(chunk)
	for size > 0 {
		n, err := p.read(f, chunk[:min(size, contentAtOnce)])
		if n > 0 {
			if _, err := p.archive.Write(chunk[:n]); err != nil {
				return err
			}
		}
		size -= int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fault.New(fault.FileSystem, "%q has shrunk while it was packed", at.shown)
		}
		if err != nil {
			return problem(at, err)
		}
	}
	return nil
}

func (p *Pack) open(v visit) (*os.File, os.FileInfo, error) {
	defer p.space.acquire()()
	f, err := v.dir.OpenFile(v.name, openForReading, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (p *Pack) read(f *os.File, b []byte) (int, error) {
	defer p.space.acquire()()
	return io.ReadFull(f, b)
}

func (p *Pack) readlink(v visit) (string, error) {
	defer p.space.acquire()()
	return v.dir.Readlink(v.name)
}
