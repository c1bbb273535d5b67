package files

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// mirror is a tree as a reader of a watch knows it.
type mirror map[string]bool

func (m mirror) apply(t *testing.T, line string) {
	t.Helper()
	kind, rest, _ := strings.Cut(line, " ")
	to, from, _ := strings.Cut(strings.TrimSuffix(rest, "/"), " from ")
	switch kind {
	case "created":
		m[to] = true
	case "removed":
		for p := range m {
			if lies(p, to) {
				delete(m, p)
			}
		}
	case "moved":
		moved := mirror{to: true}
		for p := range m {
			if lies(p, from) {
				moved[to+p[len(from):]] = true
				delete(m, p)
			} else if lies(p, to) {
				delete(m, p)
			}
		}
		for p := range moved {
			m[p] = true
		}
	case "modified", "attributes":
	default:
		t.Fatalf("%q", line)
	}
}

// TestWatchMissesNothing rearranges a tree at random and compares it with what the watch has told.
func TestWatchMissesNothing(t *testing.T) {
	s, root := space(t)
	outside := t.TempDir()
	w, err := s.Watch(".", true)
	must(t, err)
	defer w.Close()
	lines := make(told, 100_000)
	go func() { _ = w.Run(lines) }()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	path := func() string {
		p := root
		for range 1 + random.IntN(4) {
			p = filepath.Join(p, string(rune('a'+random.IntN(4))))
		}
		return p
	}
	for i := range 3000 {
		switch random.IntN(8) {
		case 0, 1:
			_ = os.MkdirAll(path(), 0o755)
		case 2, 3:
			_ = os.WriteFile(path(), []byte("x"), 0o644)
		case 4, 5:
			_ = os.Rename(path(), path())
		case 6:
			_ = os.RemoveAll(path())
		case 7:
			out := filepath.Join(outside, fmt.Sprint(random.IntN(3)))
			_ = os.Rename(path(), out)
			_ = os.Rename(out, path())
		}
		if i%500 == 0 {
			time.Sleep(time.Millisecond) // so that the reader is sometimes close behind
		}
	}
	must(t, os.WriteFile(filepath.Join(root, "end"), nil, 0o644))
	seen := mirror{}
	for line := range lines {
		if line == "created end" {
			break
		}
		seen.apply(t, line)
	}
	var want, got []string
	must(t, filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		if p != root && p != filepath.Join(root, "end") {
			want = append(want, strings.TrimPrefix(p, root+"/"))
		}
		return err
	}))
	for p := range seen {
		got = append(got, p)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("seed %d: told %q, there is %q", seed, got, want)
	}
}
