// Package traces removes what a guest, or a program that was killed, is to leave no trace of.
package traces

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/config"
	"agentic-isolation/guest/internal/files"
)

const (
	patience = 10 * time.Second
	pause    = 20 * time.Millisecond
)

// Remove removes what the settings want gone. It does all that it can, whatever fails.
func Remove(c *config.Config) error {
	var failures []error
	if !strings.HasPrefix(c.Socket, "@") {
		if err := os.Remove(c.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err)
		}
	}
	if c.Cleanup != "" {
		failures = append(failures, removeAll(c.Cleanup))
	}
	if c.Sweep != "" {
		if err := sweep(c.Sweep); !errors.Is(err, errHeld) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// WatchMain is a process that removes a service's temporary directory when the service has gone without doing it: it
// waits for the end of its standard input, which the service's death is too. It returns the exit code.
func WatchMain(dir string) int {
	_, _ = io.Copy(io.Discard, os.Stdin)
	for limit := time.Now().Add(patience); ; time.Sleep(pause) {
		// The kernel closes the files of a process that dies in no order that can be relied on: the lock may be last.
		err := sweep(dir)
		if errors.Is(err, errHeld) && time.Now().Before(limit) {
			continue
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "agentic-guest sweep: %v\n", err)
			return 1
		}
		return 0
	}
}

func removeAll(dir string) error {
	around, err := os.OpenRoot(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer around.Close()
	return files.RemoveAll(around, filepath.Base(dir))
}

var errHeld = errors.New("another process holds the directory")

// sweep removes a directory that several guests and a service share, when this was the last of them.
func sweep(dir string) error {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return errHeld
	}
	left, err := os.ReadDir(filepath.Join(dir, "w"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(left) > 0 {
		return nil
	}
	return removeAll(dir)
}
