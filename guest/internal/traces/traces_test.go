package traces

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentic-isolation/guest/internal/config"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// No path of a system call leads to what lies so deep, and its owner is locked out of it (unless that is root).
func TestRemovesLockedDirectoriesAtTheEndOfLongPaths(t *testing.T) {
	cleanup := filepath.Join(t.TempDir(), "w")
	must(t, os.Mkdir(cleanup, 0o755))
	dir, err := os.OpenRoot(cleanup)
	must(t, err)
	part := strings.Repeat("x", 200)
	for range 30 {
		must(t, dir.Mkdir(part, 0o755))
		inner, err := dir.OpenRoot(part)
		must(t, err)
		dir.Close()
		dir = inner
	}
	must(t, dir.Mkdir("locked", 0o755))
	must(t, dir.WriteFile("locked/file", nil, 0o644))
	must(t, dir.Chmod("locked", 0))
	dir.Close()
	must(t, Remove(&config.Config{Socket: "@none", Cleanup: cleanup}))
	if _, err := os.Lstat(cleanup); !os.IsNotExist(err) {
		t.Error(err)
	}
	must(t, Remove(&config.Config{Socket: "@none", Cleanup: filepath.Join(cleanup, "gone")}))
}
