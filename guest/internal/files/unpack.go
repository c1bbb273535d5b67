package files

import (
	"archive/tar"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"strconv"
	"strings"

	"agentic-isolation/guest/internal/fault"
)

// maxLinkable bounds the files of an archive that a hard link of it may name.
const maxLinkable = 1 << 20

// unpacking is one archive on its way into a directory.
type unpacking struct {
	space   *Space
	at      place
	archive *tar.Reader
	base    *os.Root
	// around is the directory of the entry that is being unpacked.
	around cursor
	marks  unsettled
	// temp is the name, in its directory, of what is not yet in its place.
	temp    string
	summary Summary
	// seen are hashes of the names of the files so far: a hard link may lead to those only.
	seed maphash.Seed
	seen map[uint64]struct{}
}

// Unpack unpacks a tar stream into the directory at p, which is made if missing. Each file appears as a whole or not at
// all; what was unpacked before an error stays. An error of the stream that is a fault.Error is returned as it is.
func (s *Space) Unpack(p string, stream io.Reader) (Summary, error) {
	at, base, err := s.makeDirectory(p)
	if err != nil {
		return Summary{}, err
	}
	defer base.Close()
	source := &ending{stream: stream}
	u := &unpacking{
		space: s, at: at, archive: tar.NewReader(source), base: base, around: cursor{base: base, makes: true},
		marks: unsettled{base: base}, temp: temporaryName(), seed: maphash.MakeSeed(), seen: map[uint64]struct{}{},
	}
	defer u.around.close()
	err = u.all(source)
	if failed := u.settle(); err == nil {
		err = failed
	}
	return u.summary, err
}

// makeDirectory pins the directory at p, which it makes if it is missing.
func (s *Space) makeDirectory(p string) (place, *os.Root, error) {
	at, err := s.locate(p)
	if err != nil {
		return at, nil, err
	}
	defer s.acquire()()
	base, err := s.tree.OpenDir(at.name)
	if errors.Is(err, os.ErrNotExist) {
		if err = s.tree.MkdirAll(at.name, 0o755); err == nil {
			base, err = s.tree.OpenDir(at.name)
		}
	}
	return at, base, problem(at, err)
}

// ending is a stream that knows whether it has ended.
type ending struct {
	stream   io.Reader
	hasEnded bool
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.stream.Read(b)
	e.hasEnded = e.hasEnded || err == io.EOF
	return n, err
}

func (u *unpacking) all(source *ending) error {
	for {
		h, err := u.archive.Next()
		if err == io.EOF {
			if source.hasEnded {
				return fault.New(fault.BadArchive, "the archive is cut off: its end is missing")
			}
			_, err := io.Copy(io.Discard, source)
			return err
		}
		if err != nil {
			return badArchive("", err)
		}
		if err := u.entry(h); err != nil {
			return err
		}
	}
}

// badArchive is what an error of the archive means, unless it is one of the stream.
func badArchive(name string, err error) error {
	var known *fault.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.BadArchive, "the archive is cut off%s", of(name))
	}
	return fault.New(fault.BadArchive, "no tar stream%s: %v", of(name), err)
}

func of(name string) string {
	if name == "" {
		return ""
	}
	return " within " + shorten(name)
}

func (u *unpacking) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := entryName(h.Name)
	if err != nil {
		return err
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return unfit(name, "a sparse file")
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(name, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeGNUSparse:
		return unfit(name, "a sparse file")
	default:
		return unfit(name, "neither a file nor a directory nor a link")
	}
	if name == "" {
		return fault.New(fault.IsADirectory, "%q is a directory", u.at.shown)
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return u.symlink(name, h)
	case tar.TypeLink:
		return u.hardLink(name, h)
	}
	return u.file(name, h)
}

func unfit(name, what string) error {
	return fault.New(fault.BadArchive, "%s is %s, which cannot be unpacked", shorten(name), what)
}

// entryName is an archive's name for an entry, cleaned. That of the directory itself is empty.
func entryName(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fault.New(fault.BadArchive, "%s: a name must not contain NUL", shorten(name))
	}
	if strings.HasPrefix(name, "/") {
		return "", leaves(name)
	}
	parts := strings.FieldsFunc(name, isSlash)
	kept := parts[:0]
	for _, part := range parts {
		switch part {
		case "..":
			return "", leaves(name)
		case ".":
		default:
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "/"), nil
}

func leaves(name string) error {
	return fault.New(fault.PathEscapes, "%s: an entry leads out of the directory", shorten(name))
}

// shorten quotes a name of the archive's for a message.
func shorten(name string) string {
	const enough = 200
	if len(name) > enough {
		name = name[:enough] + "…"
	}
	return strconv.Quote(name)
}

func (u *unpacking) settle() error {
	defer u.space.acquire()()
	return problem(u.at, u.marks.settle())
}

func (u *unpacking) remember(name string) {
	if len(u.seen) < maxLinkable {
		u.seen[maphash.String(u.seed, name)] = struct{}{}
	}
}

func (u *unpacking) knows(name string) bool {
	_, ok := u.seen[maphash.String(u.seed, name)]
	return ok
}
