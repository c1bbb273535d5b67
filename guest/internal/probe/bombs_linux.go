package probe

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"agentic-isolation/guest/internal/kernel"
)

// bomb takes up to limit of something until it is stopped or the time is over, and says what happened. It is all given
// back by release.
type bomb struct {
	limit int
	take  func(limit int, deadline time.Time) (said string, stopped bool, release func())
}

var bombs = map[string]bomb{
	"fork-bomb":   {1000, forkBomb},
	"memory-bomb": {512, memoryBomb},
	"disk-fill":   {256, diskFill},
}

const longestBomb = 30

func explode(name string, b bomb, args []string) int {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	limit := flags.Int("limit", b.limit, "processes, or MiB")
	hold := flags.Float64("hold", 0, "seconds to keep what was taken")
	during := flags.Float64("for", 10, "seconds to take it in")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return Main(nil)
	}
	said, stopped, release := b.take(*limit, time.Now().Add(seconds(*during)))
	defer release()
	outcome := NotBlocked
	if stopped {
		outcome = Blocked
	}
	code := show(name, Report{Outcome: outcome, Detail: said})
	time.Sleep(seconds(*hold))
	return code
}

func seconds(n float64) time.Duration {
	return time.Duration(min(max(n, 0), longestBomb) * float64(time.Second))
}

const (
	prSetDeathSignal = 1
	reservedThreads  = 6
)

// forkBomb makes processes of one thread each, which wait for their end.
func forkBomb(limit int, deadline time.Time) (string, bool, func()) {
	kernel.ReserveThreads(reservedThreads) // the runtime dies when it wants one at the limit
	runtime.LockOSThread()                 // whose end would be the children's
	var children []int
	release := func() {
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for _, pid := range children {
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
	for len(children) < limit && time.Now().Before(deadline) {
		pid, errno := waitingChild()
		if errno != 0 {
			return fmt.Sprintf("fork: %v after %d processes", errno, len(children)), true, release
		}
		children = append(children, pid)
	}
	return fmt.Sprintf("fork: %d processes were had", len(children)), false, release
}

// waitingChild forks without exec. In the child there is only this thread, so it must do nothing but system calls.
func waitingChild() (int, syscall.Errno) {
	wait := syscall.Timespec{Sec: 2 * longestBomb}
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	syscall.RawSyscall6(syscall.SYS_PRCTL, prSetDeathSignal, uintptr(syscall.SIGKILL), 0, 0, 0, 0)
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0)
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

const mebi = 1 << 20

// memoryBomb is expected to be killed.
func memoryBomb(limit int, deadline time.Time) (string, bool, func()) {
	var pieces [][]byte
	release := func() {
		for _, piece := range pieces {
			_ = syscall.Munmap(piece)
		}
	}
	page := os.Getpagesize()
	for len(pieces) < limit && time.Now().Before(deadline) {
		piece, err := syscall.Mmap(-1, 0, mebi, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			return fmt.Sprintf("mmap: %v after %d MiB", err, len(pieces)), true, release
		}
		for i := 0; i < len(piece); i += page {
			piece[i] = 1
		}
		pieces = append(pieces, piece)
	}
	return fmt.Sprintf("mmap: %d MiB were had", len(pieces)), false, release
}

// diskFill writes to the current directory.
func diskFill(limit int, deadline time.Time) (string, bool, func()) {
	file, err := os.CreateTemp(".", ".agentic-probe-")
	if err != nil {
		return fmt.Sprintf("make a file: %v", reason(err)), errors.Is(err, syscall.ENOSPC), func() {}
	}
	release := func() {
		file.Close()
		_ = os.Remove(file.Name())
	}
	piece := make([]byte, mebi)
	for written := range limit {
		if time.Now().After(deadline) {
			return fmt.Sprintf("write: time is over after %d MiB", written), false, release
		}
		if _, err := file.Write(piece); err != nil {
			stopped := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
			return fmt.Sprintf("write: %v after %d MiB", reason(err), written), stopped, release
		}
	}
	return fmt.Sprintf("write: %d MiB were had", limit), false, release
}
