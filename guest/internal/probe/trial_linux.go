package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// refusals are the answers of a kernel that does not let a process do something, or does not have it at all. Whatever
// else a call answers came after the permission was granted.
var refusals = []syscall.Errno{
	syscall.EPERM, syscall.EACCES, syscall.EROFS, syscall.ENOSYS, syscall.EOPNOTSUPP,
	syscall.ENOENT, syscall.ENOTDIR, syscall.ENODEV, syscall.ENXIO,
	syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT, syscall.ESOCKTNOSUPPORT,
}

// trial collects the answers to one attempt's calls: one that is not refused decides.
type trial struct {
	refused []string
	passed  []string
	none    []string
	undo    []func()
}

// answer takes a call's result. An error that is no refusal means that the call was allowed and then failed.
func (t *trial) answer(what string, err error) {
	if err == nil {
		t.pass("%s: allowed", what)
		return
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && slices.Contains(refusals, errno) {
		t.refuse("%s: %v", what, errno)
		return
	}
	t.pass("%s: allowed, then %v", what, reason(err))
}

// answerOr takes another errno for a refusal too: what a kernel that lacks this very call answers.
func (t *trial) answerOr(what string, err error, unknown syscall.Errno) {
	if err == unknown {
		t.refuse("%s: %v", what, err)
		return
	}
	t.answer(what, err)
}

func (t *trial) refuse(format string, args ...any) {
	t.refused = append(t.refused, fmt.Sprintf(format, args...))
}

func (t *trial) pass(format string, args ...any) {
	t.passed = append(t.passed, fmt.Sprintf(format, args...))
}

// skip says why something could not be tried.
func (t *trial) skip(format string, args ...any) {
	t.none = append(t.none, fmt.Sprintf(format, args...))
}

// later puts something off to the end of the attempt, the last first.
func (t *trial) later(undo func()) { t.undo = append(t.undo, undo) }

func (t *trial) cleanUp() {
	for _, undo := range slices.Backward(t.undo) {
		undo()
	}
	t.undo = nil
}

func (t *trial) report() Report {
	switch {
	case len(t.passed) > 0:
		return Report{Outcome: NotBlocked, Detail: summary(t.passed)}
	case len(t.refused) > 0:
		return Report{Outcome: Blocked, Detail: summary(t.refused)}
	}
	return Report{Outcome: NotApplicable, Detail: summary(t.none)}
}

const mostToTell = 6

// summary joins answers; those that end alike are told once.
func summary(answers []string) string {
	var order []string
	subjects := map[string][]string{}
	for _, answer := range answers {
		what, said, _ := strings.Cut(answer, ": ")
		if subjects[said] == nil {
			order = append(order, said)
		}
		subjects[said] = append(subjects[said], what)
	}
	parts := make([]string, 0, len(order))
	for _, said := range order {
		what := subjects[said]
		more := ""
		if len(what) > mostToTell {
			more = fmt.Sprintf(" and %d more", len(what)-mostToTell)
			what = what[:mostToTell]
		}
		part := strings.Join(what, ", ") + more
		if said != "" {
			part += ": " + said
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// open tries to open a file and does nothing with it.
func (t *trial) open(path string, flags int) {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err == nil {
		syscall.Close(fd)
	}
	mode := "for reading"
	if flags&(syscall.O_WRONLY|syscall.O_RDWR) != 0 {
		mode = "for writing"
	}
	t.answer("open "+path+" "+mode, err)
}

// make tries to make a file of its own in a directory, and removes it.
func (t *trial) make(dir string) {
	path := filepath.Join(dir, fmt.Sprintf(".agentic-probe-%d", os.Getpid()))
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC, 0o600)
	if err == nil {
		syscall.Close(fd)
		_ = syscall.Unlink(path)
	}
	t.answer("make a file in "+dir, err)
}

// privateDir makes a directory that goes with the attempt. Never recursively: something might be mounted there.
func (t *trial) privateDir(parent string) (string, bool) {
	dir, err := os.MkdirTemp(parent, ".agentic-probe-")
	if err != nil {
		t.skip("%s: no directory can be made: %v", parent, reason(err))
		return "", false
	}
	t.later(func() { _ = syscall.Rmdir(dir) })
	return dir, true
}

// anyPrivateDir takes the first place that can be written to.
func (t *trial) anyPrivateDir() (string, bool) {
	for _, parent := range []string{".", os.TempDir(), os.Getenv("HOME"), "/dev/shm"} {
		if absolute, err := filepath.Abs(parent); err == nil && parent != "" {
			if dir, ok := t.privateDir(absolute); ok {
				return dir, true
			}
		}
	}
	return "", false
}

// failure is a raw system call's errno as an error, nil for 0.
func failure(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
