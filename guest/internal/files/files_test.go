package files

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
)

func space(t testing.TB) (*Space, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o755))
	s, err := New(root, "/workspace", "/workspace")
	must(t, err)
	return s, root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, reason fault.Reason) {
	t.Helper()
	if !fault.Is(err, reason) {
		t.Errorf("%v, want %s", err, reason)
	}
}

func put(s *Space, p, content string, mode int) (Entry, error) {
	u, err := s.Create(p, mode, true)
	if err != nil {
		return Entry{}, err
	}
	if err := u.Write([]byte(content)); err != nil {
		u.Abort()
		return Entry{}, err
	}
	return u.Commit()
}

func get(s *Space, p string) (string, error) {
	r, err := s.Open(p, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	var all []byte
	buf := make([]byte, 1000)
	for {
		n, err := r.Next(buf)
		if err != nil || n == 0 {
			return string(all), err
		}
		all = append(all, buf[:n]...)
	}
}

func TestPaths(t *testing.T) {
	s, root := space(t)
	must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a/f"), []byte("x"), 0o644))
	must(t, os.Symlink("a/b", filepath.Join(root, "link")))
	for p, shown := range map[string]string{
		"a/f":                    "/workspace/a/f",
		"./a//f":                 "/workspace/a/f",
		"/workspace/a/f":         "/workspace/a/f",
		"//workspace/./a/../a/f": "/workspace/a/f",
		root + "/a/f":            "/workspace/a/f",
		"a/b/../f":               "/workspace/a/f",
		"/workspace":             "/workspace",
		"/workspace/":            "/workspace",
		".":                      "/workspace",
		"link/../f":              "/workspace/f",
	} {
		e, err := s.Stat(p, true)
		if err != nil || e.Path != shown {
			t.Errorf("%q: %q %v", p, e.Path, err)
		}
	}
	for _, p := range []string{"..", "a/../..", "/workspace/..", "/workspacex", "/", "/etc/passwd", root + "/../x", "../root/a/f", "/workspace/a/../../etc"} {
		_, err := s.Stat(p, true)
		want(t, err, fault.PathEscapes)
		_, err = put(s, p+"/f", "x", KeepMode)
		want(t, err, fault.PathEscapes)
	}
	for _, p := range []string{"", "a\x00b"} {
		_, err := s.Stat(p, true)
		want(t, err, fault.BadRequest)
	}
}

func TestSymlinksThatLeave(t *testing.T) {
	s, root := space(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	must(t, os.Symlink(outside, filepath.Join(root, "abs")))
	rel, err := filepath.Rel(root, outside)
	must(t, err)
	must(t, os.Symlink(rel, filepath.Join(root, "rel")))
	must(t, os.Symlink("abs", filepath.Join(root, "twice")))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "file")))
	for _, dir := range []string{"abs", "rel", "twice"} {
		_, err := get(s, dir+"/secret")
		want(t, err, fault.PathEscapes)
		_, err = put(s, dir+"/new", "x", KeepMode)
		want(t, err, fault.PathEscapes)
		_, err = s.List(dir, "", 10, 1)
		want(t, err, fault.PathEscapes)
		_, err = s.Mkdir(dir+"/d", 0o755, true)
		want(t, err, fault.PathEscapes)
		want(t, s.Remove(dir+"/secret", true, nil), fault.PathEscapes)
		_, err = s.Move(dir+"/secret", "stolen", true)
		want(t, err, fault.PathEscapes)
		_, _, err = s.WorkingDir(dir)
		want(t, err, fault.PathEscapes)
	}
	_, err = put(s, "file", "x", KeepMode)
	want(t, err, fault.PathEscapes)
	_, err = get(s, "file")
	want(t, err, fault.PathEscapes)
	e, err := s.Stat("abs", false)
	if err != nil || e.Type != "symlink" || e.Target != outside {
		t.Errorf("%+v %v", e, err)
	}
	// The link itself is the workspace's to remove.
	must(t, s.Remove("abs", true, nil))
	if raw, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(raw) != "secret" {
		t.Fatal("the secret was touched")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Fatalf("%v", entries)
	}
}

func TestSymlinksThatStay(t *testing.T) {
	s, root := space(t)
	must(t, os.MkdirAll(filepath.Join(root, "a"), 0o755))
	must(t, os.Symlink("../a/real", filepath.Join(root, "a/link")))
	must(t, os.Symlink("a", filepath.Join(root, "dir")))
	_, err := put(s, "dir/link", "through", KeepMode)
	must(t, err)
	if raw, _ := os.ReadFile(filepath.Join(root, "a/real")); string(raw) != "through" {
		t.Fatalf("%q", raw)
	}
	if content, err := get(s, "dir/link"); content != "through" {
		t.Fatal(content, err)
	}
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	_, err = put(s, "loop", "x", KeepMode)
	want(t, err, fault.FileSystem)
	_, err = get(s, "loop")
	want(t, err, fault.FileSystem)
}

// A workload swaps a directory with a symlink to the outside as fast as it can.
func TestSymlinkRace(t *testing.T) {
	s, root := space(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o644))
	inside := filepath.Join(root, "d")
	must(t, os.Mkdir(filepath.Join(root, "real"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "real", "f"), []byte("mine"), 0o644))
	must(t, os.Symlink(outside, filepath.Join(root, "evil")))
	must(t, os.Rename(filepath.Join(root, "real"), inside))
	var stop atomic.Bool
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for !stop.Load() {
			_ = os.Rename(inside, filepath.Join(root, "real"))
			_ = os.Rename(filepath.Join(root, "evil"), inside)
			_ = os.Rename(inside, filepath.Join(root, "evil"))
			_ = os.Rename(filepath.Join(root, "real"), inside)
		}
	})
	for range 3000 {
		if content, err := get(s, "d/f"); err == nil && content == "secret" {
			t.Error("the secret was read")
		}
		_, _ = put(s, "d/new", "x", KeepMode)
		_, _ = s.Mkdir("d/dir", 0o755, true)
		_ = s.Remove("d/new", false, nil)
		if page, err := s.List("d", "", 10, 1); err == nil {
			for _, e := range page.Entries {
				if e.Size == int64(len("secret")) && e.Name == "f" {
					t.Error("the outside was listed")
				}
			}
		}
	}
	stop.Store(true)
	swapper.Wait()
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Fatalf("the outside was changed: %v", entries)
	}
}

func TestWriteReplacesAtomically(t *testing.T) {
	s, root := space(t)
	e, err := put(s, "new/dir/f", "one", KeepMode)
	if err != nil || e.Mode != 0o644 || e.Size != 3 || e.Name != "f" || e.Type != "file" {
		t.Fatalf("%+v %v", e, err)
	}
	must(t, os.Chmod(filepath.Join(root, "new/dir/f"), 0o751))
	old, err := os.Open(filepath.Join(root, "new/dir/f"))
	must(t, err)
	defer old.Close()
	u, err := s.Create("new/dir/f", KeepMode, true)
	must(t, err)
	must(t, u.Write([]byte("tw")))
	if content, _ := get(s, "new/dir/f"); content != "one" {
		t.Fatalf("a half is seen: %q", content)
	}
	must(t, u.Write([]byte("o!")))
	e, err = u.Commit()
	if err != nil || e.Mode != 0o751 {
		t.Fatalf("%+v %v", e, err)
	}
	if content, _ := get(s, "new/dir/f"); content != "two!" {
		t.Fatal(content)
	}
	buf := make([]byte, 10)
	if n, _ := old.Read(buf); string(buf[:n]) != "one" {
		t.Fatal("the old file was changed in place")
	}
	e, err = put(s, "new/dir/f", "x", 0o600)
	if err != nil || e.Mode != 0o600 {
		t.Fatalf("%+v %v", e, err)
	}
	u, err = s.Create("new/dir/f", KeepMode, true)
	must(t, err)
	u.Abort()
	if entries, _ := os.ReadDir(filepath.Join(root, "new/dir")); len(entries) != 1 {
		t.Fatalf("%v", entries)
	}
	_, err = s.Create("missing/f", KeepMode, false)
	want(t, err, fault.FileNotFound)
	_, err = s.Create("new/dir", KeepMode, true)
	want(t, err, fault.IsADirectory)
	_, err = s.Create("new/dir/", KeepMode, true)
	want(t, err, fault.IsADirectory)
	_, err = s.Create(".", KeepMode, true)
	want(t, err, fault.IsADirectory)
	_, err = s.Create("new/dir/f/g", KeepMode, true)
	want(t, err, fault.NotADirectory)
}

func TestSpecialFiles(t *testing.T) {
	s, root := space(t)
	must(t, syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644))
	_, err := get(s, "fifo")
	want(t, err, fault.NotARegularFile)
	_, err = put(s, "fifo", "x", KeepMode)
	want(t, err, fault.NotARegularFile)
	_, err = s.List("fifo", "", 10, 1)
	want(t, err, fault.NotADirectory)
	_, err = put(s, "fifo/f", "x", KeepMode)
	want(t, err, fault.NotADirectory)
	_, _, err = s.WorkingDir("fifo")
	want(t, err, fault.WorkingDirNotFound)
	_, err = get(s, ".")
	want(t, err, fault.IsADirectory)
	if e, err := s.Stat("fifo", true); e.Type != "other" {
		t.Error(e, err)
	}
	whole, err := New("/", "/", "/")
	must(t, err)
	_, err = get(whole, "/dev/zero")
	want(t, err, fault.NotARegularFile)
}

func TestReadRanges(t *testing.T) {
	s, _ := space(t)
	_, err := put(s, "f", "0123456789", KeepMode)
	must(t, err)
	for _, test := range []struct {
		offset, length int64
		want           string
	}{{0, -1, "0123456789"}, {3, 4, "3456"}, {8, 100, "89"}, {10, -1, ""}, {50, 5, ""}, {0, 0, ""}} {
		r, err := s.Open("f", test.offset, test.length)
		must(t, err)
		buf := make([]byte, 20)
		n, err := r.Next(buf)
		if err != nil || string(buf[:n]) != test.want {
			t.Errorf("%+v: %q %v", test, buf[:n], err)
		}
		r.Close()
	}
}

func TestListPages(t *testing.T) {
	s, root := space(t)
	names := []string{"é", "日本", "a b", "Z", "\xff", "\xfe", "-", "☃"}
	for i := range 3000 {
		names = append(names, fmt.Sprintf("n%04d", i))
	}
	for _, name := range names {
		must(t, os.WriteFile(filepath.Join(root, name), nil, 0o644))
	}
	must(t, os.Symlink("Z", filepath.Join(root, "link")))
	var got []string
	after := ""
	for range 100 {
		page, err := s.List(".", after, 100, 1)
		must(t, err)
		for _, e := range page.Entries {
			got = append(got, e.Name)
			if e.Name == "link" && (e.Type != "symlink" || e.Target != "Z") {
				t.Errorf("%+v", e)
			}
		}
		if !page.More {
			break
		}
		after = page.Next
	}
	if len(got) != len(names)+1 || !slices.IsSorted(got) {
		t.Fatalf("%d names, sorted: %v", len(got), slices.IsSorted(got))
	}
	_, err := s.List("Z", "", 10, 1)
	want(t, err, fault.NotADirectory)
	_, err = s.List("missing", "", 10, 1)
	want(t, err, fault.FileNotFound)
}

func TestListIsBoundedInSize(t *testing.T) {
	s, root := space(t)
	dir := root
	for range 12 {
		dir = filepath.Join(dir, strings.Repeat("d", 200))
	}
	must(t, os.MkdirAll(dir, 0o755))
	for i := range 1000 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%0250d", i)), nil, 0o644))
	}
	rel, _ := filepath.Rel(root, dir)
	page, err := s.List(rel, "", 1000, 1)
	if err != nil || !page.More || len(page.Entries) == 0 {
		t.Fatal(len(page.Entries), page.More, err)
	}
}

func TestMkdirRemoveMove(t *testing.T) {
	s, root := space(t)
	e, err := s.Mkdir("d", 0o777, false)
	if err != nil || e.Mode != 0o777 || e.Type != "directory" {
		t.Fatalf("%+v %v", e, err)
	}
	_, err = s.Mkdir("d", 0o755, false)
	want(t, err, fault.FileExists)
	_, err = s.Mkdir("d", 0o755, true)
	must(t, err)
	_, err = s.Mkdir("x/y/z", 0o755, false)
	want(t, err, fault.FileNotFound)
	_, err = s.Mkdir("x/y/z", 0o700, true)
	must(t, err)
	_, err = put(s, "f", "f", KeepMode)
	must(t, err)
	_, err = s.Mkdir("f", 0o755, true)
	want(t, err, fault.FileExists)
	_, err = s.Mkdir("f/g", 0o755, true)
	want(t, err, fault.NotADirectory)

	want(t, s.Remove("x", false, nil), fault.DirectoryNotEmpty)
	want(t, s.Remove("missing", false, nil), fault.FileNotFound)
	want(t, s.Remove("missing", true, nil), fault.FileNotFound)
	want(t, s.Remove(".", true, nil), fault.BadRequest)
	want(t, s.Remove("/workspace", true, nil), fault.BadRequest)
	must(t, s.Remove("x", true, nil))

	_, err = put(s, "g", "g", KeepMode)
	must(t, err)
	_, err = s.Move("f", "g", false)
	want(t, err, fault.FileExists)
	_, err = s.Move("missing", "h", false)
	want(t, err, fault.FileNotFound)
	_, err = s.Move("f", "missing/h", false)
	want(t, err, fault.FileNotFound)
	e, err = s.Move("f", "g", true)
	if err != nil || e.Path != "/workspace/g" {
		t.Fatal(e, err)
	}
	if content, _ := get(s, "g"); content != "f" {
		t.Fatal(content)
	}
	_, err = s.Move("g", "d", true)
	want(t, err, fault.IsADirectory)
	_, err = put(s, "d/inner", "x", KeepMode)
	must(t, err)
	_, err = s.Mkdir("e", 0o755, false)
	must(t, err)
	_, err = s.Move("e", "d", true)
	want(t, err, fault.DirectoryNotEmpty)
	_, err = s.Move("d", "/etc/d", false)
	want(t, err, fault.PathEscapes)
	_, err = s.Move("d", "é ☃", false)
	must(t, err)
	if gone := !exists2(filepath.Join(root, "d")); !gone {
		t.Error("the source is left")
	}
}

// POSIX, pathname resolution: a slash at the end stands for a directory, and is no other name for a file.
func TestSlashAtTheEnd(t *testing.T) {
	s, root := space(t)
	_, err := put(s, "f", "f", KeepMode)
	must(t, err)
	_, err = s.Mkdir("d/e", 0o755, true)
	must(t, err)
	must(t, os.Symlink("d", filepath.Join(root, "l")))

	for _, name := range []string{"f/", "f//", "l/"} {
		want(t, s.Remove(name, false, nil), fault.NotADirectory)
		want(t, s.Remove(name, true, nil), fault.NotADirectory)
		_, err = s.Move(name, "g", false)
		want(t, err, fault.NotADirectory)
	}
	_, err = s.Move("f", "g/", false)
	want(t, err, fault.NotADirectory)
	for _, names := range [][2]string{{"f/", "g"}, {"f", "g/"}} {
		_, err = s.Copy(names[0], names[1], false, true, nil)
		want(t, err, fault.NotADirectory)
	}

	e, err := s.Copy("l/", "copy", false, true, nil)
	if err != nil || e.Type != "directory" || !exists2(filepath.Join(root, "copy", "e")) {
		t.Fatal(e, err)
	}
	e, err = s.Move("copy/", "moved/", false)
	if err != nil || e.Path != "/workspace/moved" {
		t.Fatal(e, err)
	}
	must(t, s.Remove("moved/", true, nil))
	must(t, s.Remove("l", false, nil))
	if !exists2(filepath.Join(root, "f")) || !exists2(filepath.Join(root, "d", "e")) {
		t.Error("something else is gone")
	}
}

func exists2(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root is denied nothing")
	}
	s, root := space(t)
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0))
	_, err := get(s, "f")
	want(t, err, fault.PermissionDenied)
}

func TestLargeContent(t *testing.T) {
	s, _ := space(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	_, err := put(s, "big", string(big), KeepMode)
	must(t, err)
	if content, err := get(s, "big"); content != string(big) {
		t.Fatal(len(content), err)
	}
}

func TestWorkingDirIsMade(t *testing.T) {
	root := t.TempDir()
	s, err := New(root, "/workspace", "/workspace/a/b")
	must(t, err)
	if _, err := put(s, "f", "x", KeepMode); err != nil {
		t.Fatal(err)
	}
	if !exists2(filepath.Join(root, "a/b/f")) {
		t.Fatal("not there")
	}
	dir, real, err := s.WorkingDir("")
	must(t, err)
	dir.Close()
	if real != filepath.Join(root, "a/b") {
		t.Fatal(real)
	}
	if _, err := New(filepath.Join(root, "missing"), "/workspace", "/workspace"); err == nil {
		t.Fatal("a root that does not exist")
	}
}

// The root's own path on the host is nobody's business but the guest's.
func TestErrorsOfSymlinksThatLeadOutNameWhatWasAskedFor(t *testing.T) {
	s, root := space(t)
	must(t, os.Mkdir(root+"/d", 0o755))
	must(t, os.Symlink("../../../secret", root+"/d/up"))
	_, err := put(s, "d/up", "x", KeepMode)
	want(t, err, fault.PathEscapes)
	if text := err.Error(); strings.Contains(text, root) || !strings.Contains(text, "/workspace/d/up") {
		t.Error(text)
	}
}
