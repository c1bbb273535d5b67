package files

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
)

// member is an entry of an archive that a test makes.
type member struct {
	tar.Header
	content string
}

func file(name, content string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o640, ModTime: time.Unix(1_000_000, 5)}, content}
}

func entry(kind byte, name, target string) member {
	return member{Header: tar.Header{Name: name, Linkname: target, Typeflag: kind, Mode: 0o750, ModTime: time.Unix(2_000_000, 0)}}
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		if m.Typeflag == tar.TypeDir {
			m.Name = strings.TrimSuffix(m.Name, "/") + "/"
		}
		m.Size, m.Format = int64(len(m.content)), tar.FormatPAX
		must(t, w.WriteHeader(&m.Header))
		_, err := w.Write([]byte(m.content))
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func unpack(s *Space, p string, archive []byte) (Summary, error) {
	return s.Unpack(p, bytes.NewReader(archive))
}

func packed(t *testing.T, s *Space, p string, exclude ...string) ([]member, Summary, error) {
	t.Helper()
	pack, err := s.Pack(p, exclude)
	must(t, err)
	defer pack.Close()
	var out bytes.Buffer
	summary, err := pack.Stream(&out)
	if err != nil {
		return nil, summary, err
	}
	var members []member
	r := tar.NewReader(&out)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return members, summary, nil
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		members = append(members, member{*h, string(content)})
	}
}

// left are the temporary files below a directory.
func left(t *testing.T, root string) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(p), temporary) {
			found = append(found, p)
		}
		return err
	}))
	return found
}

func TestUnpackAndPack(t *testing.T) {
	s, root := space(t)
	locked := entry(tar.TypeDir, "d/locked/", "")
	locked.Mode = 0o500
	suid := file("d/locked/suid", "x")
	suid.Mode = 0o6755
	summary, err := unpack(s, "new/here", archive(t,
		member{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}},
		entry(tar.TypeDir, "./", ""), entry(tar.TypeDir, "d", ""), locked, suid,
		file("d/f", "content"), file("d/f", "again"), file("no/parent", ""), file("latin-\xe9", "l"),
		file("large", strings.Repeat("x", 200_000)),
		entry(tar.TypeSymlink, "link", "/etc/passwd"), entry(tar.TypeSymlink, "inside", "d"), file("inside/through", "t"),
		entry(tar.TypeLink, "hard", "d/f"), entry(tar.TypeLink, "hard", "d/f"),
	))
	want := Summary{Files: 9, Directories: 3, Symlinks: 2, Bytes: 1 + 7 + 5 + 1 + 200_000 + 1}
	if err != nil || summary != want {
		t.Fatalf("%+v %v, want %+v", summary, err, want)
	}
	at := filepath.Join(root, "new/here")
	for name, mode := range map[string]os.FileMode{
		"d/locked/suid": 0o755, "d/locked": os.ModeDir | 0o500, "d": os.ModeDir | 0o750, "d/f": 0o640, ".": os.ModeDir | 0o750,
	} {
		info, err := os.Lstat(filepath.Join(at, name))
		must(t, err)
		if info.Mode() != mode || info.ModTime().Year() != 1970 {
			t.Errorf("%s: %v %v", name, info.Mode(), info.ModTime())
		}
	}
	if info, _ := os.Lstat(filepath.Join(at, "link")); info.ModTime().Unix() != 2_000_000 {
		t.Error(info.ModTime())
	}
	one, _ := os.Stat(filepath.Join(at, "d/f"))
	if two, _ := os.Stat(filepath.Join(at, "hard")); !os.SameFile(one, two) {
		t.Error("no hard link")
	}
	if info, _ := os.Stat(filepath.Join(at, "d/f")); info.ModTime().Nanosecond() != 5 {
		t.Error(info.ModTime())
	}
	if content, _ := get(s, "new/here/d/f"); content != "again" {
		t.Errorf("%q", content)
	}
	must(t, syscall.Mkfifo(filepath.Join(at, "fifo"), 0o600))
	members, summary, err := packed(t, s, "new/here", "large", "d/locked/", "latin-\uFFFD")
	must(t, err)
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
	}
	if got := strings.Join(names, " "); got != "d/ d/f d/through hard inside link no/ no/parent" {
		t.Error(got)
	}
	if want := (Summary{Files: 4, Directories: 2, Symlinks: 2, Skipped: 1, Bytes: 5 + 1 + 5}); summary != want {
		t.Errorf("%+v, want %+v", summary, want)
	}
	if m := members[1]; m.content != "again" || m.Mode != 0o640 || !m.ModTime.Equal(time.Unix(1_000_000, 5)) {
		t.Errorf("%+v", m)
	}
	// The same again, over what is there.
	for range 2 {
		var all bytes.Buffer
		pack, err := s.Pack("new/here", nil)
		must(t, err)
		_, err = pack.Stream(&all)
		must(t, err)
		pack.Close()
		_, err = unpack(s, "copy", all.Bytes())
		must(t, err)
	}
	first, _, _ := packed(t, s, "new/here")
	second, _, _ := packed(t, s, "copy")
	if !reflect.DeepEqual(first, second) {
		t.Error("what was packed is not what was unpacked")
	}
	if names := left(t, root); len(names) > 0 {
		t.Error(names)
	}
	must(t, s.Remove("new", true, nil))
	must(t, s.Remove("copy", true, nil))
}

func TestUnpackRefuses(t *testing.T) {
	sparse := file("sparse", "x")
	sparse.PAXRecords = map[string]string{"VENDOR.x": strings.Repeat("x", 1<<20-100)}
	good := archive(t, file("a", strings.Repeat("a", 100_000)))
	headed := func(kind byte) []byte {
		raw := archive(t, file("x", ""))
		raw[156] = kind
		sum := 8 * int(' ')
		for i, c := range raw[:512] {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(raw[148:], fmt.Sprintf("%06o\x00 ", sum))
		return raw
	}
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "passwd"), []byte("root"), 0o644))
	for name, c := range map[string]struct {
		archive []byte
		reason  fault.Reason
	}{
		"empty":                      {nil, fault.BadArchive},
		"garbage":                    {bytes.Repeat([]byte("garbage "), 1000), fault.BadArchive},
		"cut in a header":            {good[:700], fault.BadArchive},
		"cut in a file":              {good[:50_000], fault.BadArchive},
		"cut at a file's end":        {good[:len(good)-1024], fault.BadArchive},
		"cut in the end":             {good[:len(good)-512], fault.BadArchive},
		"absolute":                   {archive(t, file("/etc/passwd", "x")), fault.PathEscapes},
		"above":                      {archive(t, file("../x", "x")), fault.PathEscapes},
		"above later":                {archive(t, file("a/../../x", "x")), fault.PathEscapes},
		"through a link":             {archive(t, entry(tar.TypeSymlink, "d", outside), file("d/passwd", "x")), fault.PathEscapes},
		"through a link as well":     {archive(t, entry(tar.TypeSymlink, "d", ".."), file("d/x", "x")), fault.PathEscapes},
		"a directory through a link": {archive(t, entry(tar.TypeSymlink, "d", outside), entry(tar.TypeDir, "d/e", "")), fault.PathEscapes},
		"modes through a link":       {archive(t, entry(tar.TypeSymlink, "d", outside), entry(tar.TypeDir, "d", "")), fault.PathEscapes},
		"link out":                   {archive(t, entry(tar.TypeLink, "h", "../passwd")), fault.PathEscapes},
		"link out by name":           {archive(t, entry(tar.TypeLink, "h", "/etc/passwd")), fault.PathEscapes},
		"link to what was there":     {archive(t, entry(tar.TypeLink, "h", "old")), fault.BadArchive},
		"link through a link": {
			archive(t, file("d/passwd", ""), entry(tar.TypeSymlink, "e", outside), entry(tar.TypeLink, "h", "e/passwd")), fault.BadArchive,
		},
		"device":              {headed(tar.TypeBlock), fault.BadArchive},
		"character device":    {headed(tar.TypeChar), fault.BadArchive},
		"pipe":                {headed(tar.TypeFifo), fault.BadArchive},
		"unknown kind":        {headed('Q'), fault.BadArchive},
		"a file in the way":   {archive(t, entry(tar.TypeDir, "old", "")), fault.NotADirectory},
		"a file on the way":   {archive(t, file("old/x", "")), fault.NotADirectory},
		"a directory":         {archive(t, file("dir", "")), fault.IsADirectory},
		"a directory again":   {archive(t, entry(tar.TypeSymlink, "dir", "x")), fault.IsADirectory},
		"itself":              {archive(t, file(".", "")), fault.IsADirectory},
		"no target":           {archive(t, entry(tar.TypeSymlink, "x", "")), fault.BadArchive},
		"NUL":                 {bytes.Replace(archive(t, file("päx", "")), []byte("p\xc3\xa4x"), []byte("p\x00\xa4x"), -1), fault.BadArchive},
		"a name that is long": {archive(t, file(strings.Repeat("x", 300), "")), fault.FileSystem},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := space(t)
			must(t, os.WriteFile(filepath.Join(root, "old"), []byte("old"), 0o600))
			must(t, os.Mkdir(filepath.Join(root, "dir"), 0o755))
			_, err := unpack(s, ".", c.archive)
			want(t, err, c.reason)
			if names := left(t, root); len(names) > 0 {
				t.Error(names)
			}
			if content, _ := get(s, "old"); content != "old" {
				t.Errorf("%q", content)
			}
			if exists2(filepath.Join(root, "a")) != (name == "cut at a file's end" || name == "cut in the end") {
				t.Error("half a file")
			}
			if exists2(filepath.Join(root, "../x")) {
				t.Error("it is outside")
			}
		})
	}
	if info, _ := os.Stat(outside); info.Mode().Perm() != 0o755 && info.Mode().Perm() != 0o700 {
		t.Error(info.Mode())
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Error(names)
	}
	s, _ := space(t)
	_, err := unpack(s, ".", archive(t, sparse))
	must(t, err)
	_, err = unpack(s, "sparse", nil)
	want(t, err, fault.NotADirectory)
	_, err = unpack(s, "../x", nil)
	want(t, err, fault.PathEscapes)
}

// TestArchiveSymlinkRace swaps a directory for a symlink that leaves while archives go in and out.
func TestArchiveSymlinkRace(t *testing.T) {
	s, root := space(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o640))
	must(t, os.MkdirAll(filepath.Join(root, "t/real"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "t/real/f"), []byte("inside"), 0o640))
	must(t, os.Symlink(outside, filepath.Join(root, "t/fake")))
	d := filepath.Join(root, "t/d")
	var stop atomic.Bool
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for !stop.Load() {
			for _, name := range []string{"real", "fake"} {
				_ = os.Rename(filepath.Join(root, "t", name), d)
				_ = os.Rename(d, filepath.Join(root, "t", name))
			}
		}
	})
	in := archive(t, file("d/f", "in"), entry(tar.TypeDir, "d", ""), file("d/new", "in"), entry(tar.TypeLink, "d/hard", "d/new"))
	for i := range 200 {
		_, _ = unpack(s, "t", in)
		members, _, err := packed(t, s, "t")
		for _, m := range members {
			if err == nil && m.content == "secret" {
				t.Fatal("the secret was packed")
			}
		}
		to := fmt.Sprintf("c%d", i)
		_, _ = s.Copy("t/d", to, true, true, nil)
		_, _ = s.Copy("t/d/f", "t/d/copy", true, true, nil)
		_, _ = s.Chmod("t/d/f", 0o600)
		_, _ = s.Chmod("t/d", 0o755)
		if content, _ := get(s, to+"/f"); content == "secret" {
			t.Fatal("the secret was copied")
		}
		_ = s.Remove(to, true, nil)
	}
	stop.Store(true)
	swapper.Wait()
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("the outside was changed: %v", names)
	}
	if info, _ := os.Stat(filepath.Join(outside, "f")); info.Mode() != 0o640 || info.Size() != 6 {
		t.Errorf("the outside was changed: %v", info)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, file("a/b", "c"), entry(tar.TypeSymlink, "l", ".."), entry(tar.TypeDir, "d", ""), entry(tar.TypeLink, "h", "a/b")))
	f.Add(archive(f, entry(tar.TypeSymlink, "d", "/etc"), file("d/passwd", "x"), file(strings.Repeat("x/", 200)+"f", "x")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, root := space(t)
		before, _ := os.ReadDir(filepath.Dir(root))
		_, _ = unpack(s, "x", raw)
		if after, _ := os.ReadDir(filepath.Dir(root)); len(after) != len(before) {
			t.Error("it has left the root")
		}
		if names, _ := os.ReadDir(root); len(names) != 1 {
			t.Error("it has left the directory")
		}
		_ = s.Remove("x", true, nil)
	})
}

func BenchmarkUnpackSmallFiles(b *testing.B) {
	var members []member
	for i := range 200 {
		for j := range 100 {
			members = append(members, file(fmt.Sprintf("d/%03d/f%03d", i, j), strings.Repeat("x", 1000)))
		}
	}
	raw := archive(b, members...)
	s, _ := space(b)
	for i := range b.N {
		if _, err := unpack(s, fmt.Sprintf("u%d", i), raw); err != nil {
			b.Fatal(err)
		}
	}
}
