package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
)

// told is a listener that hands on what it is told.
type told chan string

func (t told) Tell(c Change) error {
	line := c.Kind
	if c.Path != "" {
		line += " " + strings.TrimPrefix(c.Path, "/workspace/")
	}
	if c.From != "" {
		line += " from " + strings.TrimPrefix(c.From, "/workspace/")
	}
	if c.IsDirectory {
		line += "/"
	}
	t <- line
	return nil
}

func (t told) Flush() error { return nil }

// expect waits for lines in their order.
func (t told) expect(test *testing.T, lines ...string) {
	test.Helper()
	for _, line := range lines {
		select {
		case got := <-t:
			if got != line {
				test.Fatalf("%q, want %q", got, line)
			}
		case <-time.After(20 * time.Second):
			test.Fatalf("%q is not told", line)
		}
	}
}

// watching runs a watch; over has what it ends with.
func watching(t *testing.T, s *Space, p string, recursive bool) (w *Watch, lines told, over chan error) {
	t.Helper()
	w, err := s.Watch(p, recursive)
	must(t, err)
	lines, over = make(told, 10_000), make(chan error, 1)
	go func() { over <- w.Run(lines) }()
	t.Cleanup(w.Close)
	return w, lines, over
}

func TestWatch(t *testing.T) {
	s, root := space(t)
	in := func(name string) string { return filepath.Join(root, name) }
	must(t, os.MkdirAll(in("d/old/deep"), 0o755))
	outside := t.TempDir()
	first, err := s.Watch("d", false) // which makes the runtime's poller
	must(t, err)
	first.Close()
	open := descriptors(t)
	w, lines, over := watching(t, s, "d", true)
	if w.Entry.Path != "/workspace/d" || w.Entry.Type != "directory" {
		t.Error(w.Entry)
	}
	write := func(name, content string) {
		f, err := os.OpenFile(in(name), os.O_WRONLY|os.O_CREATE, 0o644)
		must(t, err)
		for _, c := range content {
			_, err = f.WriteString(string(c))
			must(t, err)
		}
		f.Close()
	}
	write("d/f", "x")
	lines.expect(t, "created d/f", "modified d/f")
	write("d/old/deep/f", "")
	lines.expect(t, "created d/old/deep/f")
	must(t, os.Chmod(in("d/f"), 0o600))
	lines.expect(t, "attributes d/f")
	must(t, os.MkdirAll(in("d/a/b/c"), 0o755))
	lines.expect(t, "created d/a/", "created d/a/b/", "created d/a/b/c/")
	write("d/a/b/c/f", "")
	lines.expect(t, "created d/a/b/c/f")
	must(t, os.Rename(in("d/a"), in("d/old/moved")))
	lines.expect(t, "moved d/old/moved from d/a/")
	write("d/old/moved/b/g", "")
	lines.expect(t, "created d/old/moved/b/g")
	must(t, os.Rename(in("d/old/moved/b"), filepath.Join(outside, "b")))
	lines.expect(t, "removed d/old/moved/b/")
	must(t, os.WriteFile(filepath.Join(outside, "b/c/unseen"), nil, 0o644))
	must(t, os.Rename(filepath.Join(outside, "b"), in("d/back")))
	lines.expect(t, "created d/back/", "created d/back/c/", "created d/back/c/f", "created d/back/c/unseen", "created d/back/g")
	// What the guest itself makes appears as a whole.
	_, err = put(s, "d/back/put", "x", KeepMode)
	must(t, err)
	lines.expect(t, "created d/back/put")
	_, err = s.Copy("d/back", "d/copied", false, true, nil)
	must(t, err)
	lines.expect(t, "created d/copied/", "created d/copied/c/", "created d/copied/c/f", "created d/copied/c/unseen", "created d/copied/g", "created d/copied/put")
	write("d/copied/c/new", "")
	lines.expect(t, "created d/copied/c/new")
	must(t, os.RemoveAll(in("d/copied/c")))
	for range 4 {
		if line := <-lines; !strings.HasPrefix(line, "removed d/copied/c") {
			t.Error(line)
		}
	}
	// A symlink is an entry, and leads nowhere.
	must(t, os.Symlink(outside, in("d/link")))
	lines.expect(t, "created d/link")
	must(t, os.WriteFile(filepath.Join(outside, "secret"), nil, 0o644))
	must(t, os.Rename(in("d"), in("e")))
	lines.expect(t, "removed d/")
	must(t, <-over)
	w.Close()
	if now := descriptors(t); now > open {
		t.Errorf("%d descriptors are open, %d were", now, open)
	}
}

func TestWatchEnds(t *testing.T) {
	s, root := space(t)
	must(t, os.MkdirAll(filepath.Join(root, "d/e"), 0o755))
	w, lines, over := watching(t, s, "d", false)
	must(t, os.WriteFile(filepath.Join(root, "d/e/f"), nil, 0o644))
	must(t, os.Remove(filepath.Join(root, "d/e/f")))
	w.Close()
	if err := <-over; !errors.Is(err, os.ErrClosed) || len(lines) > 0 {
		t.Error(err, len(lines))
	}
	for _, recursive := range []bool{false, true} {
		must(t, os.MkdirAll(filepath.Join(root, "d/e"), 0o755))
		_, lines, over = watching(t, s, "d", recursive)
		must(t, os.RemoveAll(filepath.Join(root, "d")))
		lines.expect(t, "removed d/e/", "removed d/")
		must(t, <-over)
	}
	must(t, os.Symlink("/etc", filepath.Join(root, "out")))
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o644))
	must(t, syscall.Mkfifo(filepath.Join(root, "p"), 0o644))
	for p, reason := range map[string]fault.Reason{
		"out": fault.PathEscapes, "f": fault.NotADirectory, "missing": fault.FileNotFound, "p": fault.NotADirectory,
	} {
		_, err := s.Watch(p, true)
		want(t, err, reason)
	}
}

// held is a listener that takes nothing until it is let go.
type held struct {
	told
	gate chan struct{}
}

func (h held) Tell(c Change) error {
	<-h.gate
	return h.told.Tell(c)
}

func TestWatchOverflows(t *testing.T) {
	raw, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	var limit int
	if _, err := fmt.Sscan(string(raw), &limit); err != nil || limit > 100_000 {
		t.Skip("the kernel's queue is too long")
	}
	s, root := space(t)
	must(t, os.MkdirAll(filepath.Join(root, "gone/deep"), 0o755))
	w, err := s.Watch(".", true)
	must(t, err)
	defer w.Close()
	lines := held{make(told, 2*limit+10_000), make(chan struct{})}
	go func() { _ = w.Run(lines) }()
	name := filepath.Join(root, "f")
	for i := 0; i < limit+5000; i += 2 {
		must(t, os.WriteFile(name, nil, 0o644))
		must(t, os.Remove(name))
	}
	must(t, os.RemoveAll(filepath.Join(root, "gone")))
	must(t, os.MkdirAll(filepath.Join(root, "missed/deep"), 0o755))
	close(lines.gate)
	for line := range lines.told {
		if line == "overflow" {
			break
		}
	}
	// What appears before the watches are complete again is missed as well.
	for i := 0; ; i++ {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("missed/deep/f%d", i)), nil, 0o644))
		select {
		case line := <-lines.told:
			if !strings.HasPrefix(line, "created missed/deep/f") {
				t.Error(line)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		if i > 400 {
			t.Fatal("the watches are not complete again")
		}
	}
}
