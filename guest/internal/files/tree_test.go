package files

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
)

// listed pages through a directory's tree and calls between before each page but the first.
func listed(t *testing.T, s *Space, p string, limit, depth int, between func(last string)) (paths []string) {
	t.Helper()
	after := ""
	for {
		page, err := s.List(p, after, limit, depth)
		must(t, err)
		for _, e := range page.Entries {
			paths = append(paths, strings.TrimPrefix(e.Path, "/workspace/"))
		}
		if !page.More {
			return paths
		}
		after = page.Next
		if between != nil {
			between(after)
		}
	}
}

func TestListGoesDown(t *testing.T) {
	s, root := space(t)
	for _, name := range []string{"a/b/c/d", "a/b.x", "a-", "b/\xff/x", "b/\xfe", "b/y", "z"} {
		must(t, os.MkdirAll(filepath.Join(root, name), 0o755))
	}
	must(t, os.Symlink("a", filepath.Join(root, "l")))
	all := []string{"a", "a/b", "a/b/c", "a/b/c/d", "a/b.x", "a-", "b", "b/y", "b/\uFFFD", "b/\uFFFD", "b/\uFFFD/x", "l", "z"}
	if got := listed(t, s, ".", 1000, 1000, nil); !slices.Equal(got, all) {
		t.Errorf("%q", got)
	}
	for depth, want := range map[int][]string{1: {"a", "a-", "b", "l", "z"}, 2: {"a", "a/b", "a/b.x", "a-", "b", "b/y", "b/\uFFFD", "b/\uFFFD", "l", "z"}} {
		for _, limit := range []int{4, 1000} {
			if got := listed(t, s, ".", limit, depth, nil); !slices.Equal(got, want) {
				t.Errorf("%q", got)
			}
		}
	}
	must(t, os.Remove(filepath.Join(root, "b/\xfe")))
	all = slices.Delete(all, 8, 9)
	for limit := 1; limit < len(all); limit++ {
		if got := listed(t, s, ".", limit, 10, nil); !slices.Equal(got, all) {
			t.Errorf("%d: %q", limit, got)
		}
	}
	// What a page comes after may be gone by then, or be something else, and there may be no such thing at all.
	for after, want := range map[string]string{"a/b/zz/y": "a/b.x", "a/b.x/y": "a-", "l/b": "z", "a/../b": "a/b", "/": "a", "zz": ""} {
		page, err := s.List(".", after, 1, 10)
		must(t, err)
		got := ""
		if len(page.Entries) > 0 {
			got = strings.TrimPrefix(page.Entries[0].Path, "/workspace/")
		}
		if got != want {
			t.Errorf("after %q: %q, want %q", after, got, want)
		}
	}
}

func TestListLosesNothingThatStays(t *testing.T) {
	s, root := space(t)
	var stays []string
	for i := range 20 {
		dir := fmt.Sprintf("d%02d", i)
		stays = append(stays, dir)
		for j := range 20 {
			stays = append(stays, fmt.Sprintf("%s/s%02d", dir, j))
			must(t, os.MkdirAll(filepath.Join(root, dir, fmt.Sprintf("s%02d", j)), 0o755))
		}
	}
	n := 0
	got := listed(t, s, ".", 7, 5, func(last string) {
		n++
		must(t, os.RemoveAll(filepath.Join(root, fmt.Sprintf("d%02d/x%d", n%20, n-1))))
		must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(last), fmt.Sprintf("new%d", n)), 0o755))
		must(t, os.MkdirAll(filepath.Join(root, fmt.Sprintf("d%02d/x%d", (n+1)%20, n)), 0o755))
	})
	got = slices.DeleteFunc(got, func(p string) bool {
		return strings.HasPrefix(filepath.Base(p), "x") || strings.HasPrefix(filepath.Base(p), "new")
	})
	if !slices.Equal(got, stays) {
		t.Errorf("%d paths, want %d: %q", len(got), len(stays), got)
	}
}

// deep makes a chain of directories, each with a file that comes after it.
func deep(t *testing.T, root string, levels int) {
	t.Helper()
	dir, err := os.OpenRoot(root)
	must(t, err)
	for range levels {
		must(t, dir.WriteFile("f", []byte("x"), 0o644))
		must(t, dir.Mkdir("d", 0o755))
		inner, err := dir.OpenRoot("d")
		must(t, err)
		dir.Close()
		dir = inner
	}
	dir.Close()
}

// Directories take time as well as what lies in them.
func TestCopyOfDirectoriesAloneIsCancelled(t *testing.T) {
	const many = 600
	s, root := space(t)
	must(t, os.Mkdir(filepath.Join(root, "t"), 0o755))
	for i := range many {
		must(t, os.Mkdir(filepath.Join(root, "t", strconv.Itoa(i)), 0o755))
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		_, err := s.Copy("t", "u", false, true, stop)
		done <- err
	}()
	for begun := false; !begun; {
		found, err := filepath.Glob(filepath.Join(root, temporary+"*/*"))
		must(t, err)
		begun = len(found) > 0
	}
	close(stop)
	want(t, <-done, fault.Cancelled)
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
}

// A tree that is deeper than files may be open is removed, and leaves descriptors for everybody else meanwhile.
func TestRemovalOfADeepTree(t *testing.T) {
	const levels = 300
	s, root := space(t)
	must(t, os.Mkdir(filepath.Join(root, "t"), 0o755))
	deep(t, filepath.Join(root, "t"), levels)
	for i := range levels {
		must(t, os.WriteFile(filepath.Join(root, "t/d", strconv.Itoa(i)), nil, 0o644))
	}
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before))
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: before.Max}))
	err := s.Remove("t", true, nil)
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before))
	must(t, err)
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

// Where others put more into a directory than is taken out, nothing but this ends a removal.
func TestRemovalIsCancelled(t *testing.T) {
	s, root := space(t)
	must(t, os.MkdirAll(filepath.Join(root, "t/d"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "t/d/f"), nil, 0o644))
	stop := make(chan struct{})
	close(stop)
	want(t, s.Remove("t", true, stop), fault.Cancelled)
	if _, err := os.Stat(filepath.Join(root, "t/d/f")); err != nil {
		t.Error(err)
	}
}

func TestTreesOfAnyDepth(t *testing.T) {
	const levels = 150
	s, root := space(t)
	must(t, os.Mkdir(filepath.Join(root, "t"), 0o755))
	deep(t, filepath.Join(root, "t"), levels)
	open := descriptors(t)
	if got := listed(t, s, "t", 700, 1000, nil); len(got) != 2*levels {
		t.Error(len(got))
	}
	_, err := s.Copy("t", "u", false, true, nil)
	must(t, err)
	members, summary, err := packed(t, s, "u")
	must(t, err)
	if len(members) != 2*levels || summary.Files != levels || summary.Directories != levels {
		t.Error(len(members), summary)
	}
	_, err = unpack(s, "v", archive(t, members...))
	must(t, err)
	if now := descriptors(t); now > open {
		t.Errorf("%d descriptors are open, %d were", now, open)
	}
	for _, name := range []string{"t", "u", "v"} {
		must(t, s.Remove(name, true, nil))
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	must(t, err)
	return len(entries)
}

func TestCopy(t *testing.T) {
	s, root := space(t)
	in := func(name string) string { return filepath.Join(root, name) }
	must(t, os.MkdirAll(in("d/locked"), 0o755))
	must(t, os.WriteFile(in("d/locked/f"), []byte("content"), 0o600))
	must(t, os.Symlink("/etc/passwd", in("d/link")))
	must(t, os.Chmod(in("d/locked"), 0o555))
	must(t, os.WriteFile(in("g"), []byte(strings.Repeat("g", 100_000)), 0o751))

	e, err := s.Copy("g", "h", false, false, nil)
	if err != nil || e.Path != "/workspace/h" || e.Size != 100_000 || e.Mode != 0o751 {
		t.Fatal(e, err)
	}
	_, err = s.Copy("d/locked/f", "h", false, false, nil)
	want(t, err, fault.FileExists)
	e, err = s.Copy("d/locked/f", "h", true, false, nil)
	if content, _ := get(s, "h"); err != nil || content != "content" || e.Mode != 0o600 {
		t.Fatal(e, content, err)
	}
	_, err = s.Copy("h", "h", true, false, nil)
	must(t, err)
	e, err = s.Copy("d/link", "l", false, false, nil)
	if err != nil || e.Type != "symlink" || e.Target != "/etc/passwd" {
		t.Fatal(e, err)
	}
	_, err = s.Copy("d", "e", false, false, nil)
	want(t, err, fault.IsADirectory)
	e, err = s.Copy("d", "e", false, true, nil)
	if err != nil || e.Type != "directory" || e.Mode != 0o755 {
		t.Fatal(e, err)
	}
	first, _, _ := packed(t, s, "d")
	second, _, _ := packed(t, s, "e")
	for i := range first {
		if a, b := first[i], second[i]; a.Name != b.Name || a.Mode != b.Mode || a.content != b.content || a.Linkname != b.Linkname {
			t.Errorf("%+v, want %+v", b, a)
		}
	}
	for _, c := range []struct {
		from, to string
		reason   fault.Reason
	}{
		{"d", "e", fault.FileExists}, {"g", "e", fault.FileExists}, {"missing", "x", fault.FileNotFound},
		{"g", "missing/x", fault.FileNotFound}, {"g", ".", fault.FileExists}, {"d", "d/x", fault.BadRequest},
		{"d", "d/locked/x", fault.BadRequest}, {".", "x", fault.BadRequest}, {"/workspace", "d/x", fault.BadRequest},
		{"l", "../x", fault.PathEscapes}, {"../etc", "x", fault.PathEscapes}, {"g", "l", fault.PathEscapes},
	} {
		_, err := s.Copy(c.from, c.to, true, true, nil)
		if !fault.Is(err, c.reason) {
			t.Errorf("%s to %s: %v, want %s", c.from, c.to, err, c.reason)
		}
	}
	// Only the kernel knows that this is within.
	must(t, os.Symlink("d", in("s")))
	_, err = s.Copy("d", "s/x", false, true, nil)
	want(t, err, fault.BadRequest)
	must(t, syscall.Mkfifo(in("d/fifo"), 0o600))
	_, err = s.Copy("d", "x", false, true, nil)
	want(t, err, fault.NotARegularFile)
	stop := make(chan struct{})
	close(stop)
	for _, from := range []string{"d", "g"} {
		_, err = s.Copy(from, "x", false, true, stop)
		want(t, err, fault.Cancelled)
	}
	if names := left(t, root); len(names) > 0 || exists2(in("x")) {
		t.Error(names)
	}
	// Only so can the test clean up.
	must(t, s.Remove("d", true, nil))
	must(t, s.Remove("e", true, nil))
}

func TestChmod(t *testing.T) {
	s, root := space(t)
	outside := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(outside, nil, 0o600))
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0))
	must(t, os.Symlink("f", filepath.Join(root, "l")))
	must(t, os.Symlink(outside, filepath.Join(root, "out")))
	for _, p := range []string{"f", "l", ".", "/workspace"} {
		e, err := s.Chmod(p, 0o704)
		if err != nil || e.Mode != 0o704 {
			t.Error(e, err)
		}
	}
	for _, p := range []string{"out", "../f"} {
		_, err := s.Chmod(p, 0o777)
		want(t, err, fault.PathEscapes)
	}
	_, err := s.Chmod("missing", 0o777)
	want(t, err, fault.FileNotFound)
	if info, _ := os.Stat(outside); info.Mode() != 0o600 {
		t.Error(info.Mode())
	}
}
