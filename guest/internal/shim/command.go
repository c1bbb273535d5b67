package shim

import (
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/kernel"
)

// stdio is how many of a start request's descriptors the command gets; the one after them is its working directory.
const stdio = 3

// command is what a shim runs, from its start until its tree is empty.
type command struct {
	control *control
	channel uint32
	leader  int
	began   time.Time
	// empty is closed when the tree is.
	empty chan struct{}
	kill  killState

	// mu is held while a child is reaped and while the leader is signalled: its id cannot become another's meanwhile.
	mu           sync.Mutex
	leaderReaped bool
	usage        Usage
}

func start(c *control, victims *kernel.Victims, channel uint32, req *Request, fds []int) (*command, error) {
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	if len(fds) != stdio+1 || len(req.Argv) == 0 {
		return nil, fault.New(fault.StartFailed, "start request with %d descriptors", len(fds))
	}
	if err := syscall.Fchdir(fds[stdio]); err != nil {
		return nil, fault.New(fault.WorkingDirNotFound, "cannot enter the working directory: %v", err)
	}
	program, err := findProgram(req.Argv[0], req.Env)
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{
		Env:   req.Env,
		Files: []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: req.Terminal},
	}
	if u := req.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	began := time.Now()
	pid, err := victims.Before(func() (int, error) { return forkExec(program, req.Argv, attr) })
	if err != nil {
		return nil, startFault(program, req.User, err)
	}
	return &command{
		control: c, channel: channel, leader: pid, began: began,
		empty: make(chan struct{}),
	}, nil
}

// forkExec retries while somebody still writes the program: the descriptor through which a program was just written
// may live for a moment in a process that another start has forked.
func forkExec(program string, argv []string, attr *syscall.ProcAttr) (int, error) {
	for pause := time.Millisecond; ; pause *= 2 {
		pid, err := syscall.ForkExec(program, argv, attr)
		if err != syscall.ETXTBSY || pause > 64*time.Millisecond {
			return pid, err
		}
		time.Sleep(pause)
	}
}

// endsBriefly waits for a command that takes hardly any time. It returns whether nothing is left to supervise.
func (c *command) endsBriefly() bool {
	leader, err := openProcess(c.leader)
	if err != nil {
		return false
	}
	defer syscall.Close(leader)
	return awaitBriefly(leader, c.control.fd) && c.reap()
}

// supervise reaps until the kernel says that no child is left.
func (c *command) supervise() {
	for awaitChild() == nil {
		if c.reap() {
			return
		}
	}
	close(c.empty)
	c.control.send(frame.Event, c.channel, &Event{Event: EventEmpty, Empty: true, Usage: c.usage})
}

// reap reaps whatever has ended, and tells of the leader's end. It returns whether that was the tree's.
func (c *command) reap() bool {
	c.mu.Lock()
	exited, more := c.reapAll()
	c.mu.Unlock()
	if exited == nil {
		return false
	}
	exited.Empty = !more
	if !more {
		close(c.empty)
	}
	c.control.send(frame.Event, c.channel, exited)
	return !more
}

// reapAll reaps whatever has ended. It returns the leader's end if that was among it, and whether children are left.
func (c *command) reapAll() (exited *Event, more bool) {
	for {
		var status syscall.WaitStatus
		var ru syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &ru)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			if exited != nil {
				exited.Usage = c.usage
			}
			return exited, err == nil
		}
		c.usage.CPUMicros += micros(ru.Utime) + micros(ru.Stime)
		if status.Signaled() && status.Signal() == syscall.SIGKILL {
			c.usage.Killed++
		}
		c.usage.PeakMemory = max(c.usage.PeakMemory, int64(ru.Maxrss)*peakScale)
		if pid == c.leader {
			c.leaderReaped = true
			exited = &Event{Event: EventExited, Status: uint32(status), DurationUS: time.Since(c.began).Microseconds()}
		}
	}
}

func micros(t syscall.Timeval) int64 { return int64(t.Sec)*1_000_000 + int64(t.Usec) }

// signalLeader signals the command itself, unless it has ended.
func (c *command) signalLeader(signal syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaderReaped {
		return fault.New(fault.ProcessNotFound, "the command has ended")
	}
	if err := syscall.Kill(c.leader, signal); err != nil {
		return fault.New(fault.PermissionDenied, "signal %d: %v", signal, err)
	}
	return nil
}
