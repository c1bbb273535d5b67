package files

import (
	"io"
	"os"

	"agentic-isolation/guest/internal/fault"
)

// Reader is a file opened for reading.
type Reader struct {
	Entry Entry
	space *Space
	at    place
	file  *os.File
	left  int64 // negative: to the end
}

// Open opens a regular file for reading length bytes (negative: all) from offset.
func (s *Space) Open(p string, offset, length int64) (*Reader, error) {
	at, err := s.locate(p)
	if err != nil {
		return nil, err
	}
	defer s.acquire()()
	// Opening a device may have effects, so look first; what is opened is looked at again.
	info, err := s.tree.Stat(at.name)
	if err != nil {
		return nil, problem(at, err)
	}
	if err := mustBeRegular(at, info); err != nil {
		return nil, err
	}
	f, err := s.tree.Open(at.name, openForReading)
	if err != nil {
		return nil, problem(at, err)
	}
	if info, err = f.Stat(); err == nil {
		err = mustBeRegular(at, info)
	}
	if err == nil && offset > 0 {
		// File systems refuse to seek where no file of theirs could reach.
		_, err = f.Seek(min(offset, info.Size()), io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, problem(at, err)
	}
	return &Reader{Entry: entryOf(at.shown, info), space: s, at: at, file: f, left: length}, nil
}

func mustBeRegular(at place, info os.FileInfo) error {
	switch {
	case info.IsDir():
		return fault.New(fault.IsADirectory, "%q is a directory", at.shown)
	case !info.Mode().IsRegular():
		return fault.New(fault.NotARegularFile, "%q is not a regular file", at.shown)
	}
	return nil
}

// Next fills b as far as there is content; 0 is the end.
func (r *Reader) Next(b []byte) (int, error) {
	if r.left >= 0 && int64(len(b)) > r.left {
		b = b[:r.left]
	}
	if len(b) == 0 {
		return 0, nil
	}
	defer r.space.acquire()()
	n, err := io.ReadFull(r.file, b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return n, problem(r.at, err)
	}
	if r.left >= 0 {
		r.left -= int64(n)
	}
	return n, nil
}

// Close closes the file.
func (r *Reader) Close() { r.file.Close() }
