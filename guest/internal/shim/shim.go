package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/kernel"
)

// reservedThreads are for all that may block in the kernel at a time: the control socket, a child's end, a start, a kill,
// and one that runs meanwhile. The runtime dies when it wants one more while the workspace may have no more processes.
const reservedThreads = 5

type shim struct {
	control *control
	victims *kernel.Victims

	mu      sync.Mutex
	current *command
}

// Main is the shim process. Args has the number of the descriptors that it has inherited, if any. It returns the exit
// code.
func Main(args []string) int {
	syscall.CloseOnExec(ControlFD)
	control := newControl(ControlFD)
	if err := control.inherit(args); err != nil {
		return complain("cannot tell what it has inherited", err)
	}
	victims := kernel.RankBehind()
	if err := kernel.ForbidTracing(); err != nil {
		return complain("cannot forbid tracing", err)
	}
	forsakeSignals()
	if err := kernel.BecomeSubreaper(); err != nil {
		return complain("cannot become a subreaper", err)
	}
	kernel.ReserveThreads(reservedThreads)
	s := &shim{control: control, victims: victims}
	s.control.send(frame.Hello, 0, struct{}{})
	// Two goroutines take turns: one that has started a command goes on to supervise it, and the other reads.
	// Handing the command over instead would make it wait until the runtime notices the reader's system call.
	turn := make(chan struct{}, 1)
	ended := make(chan error)
	turn <- struct{}{}
	for range 2 {
		go func() {
			for range turn {
				if err := s.step(turn); err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	<-ended
	s.abandon()
	return 0
}

// step handles one request. It gives the turn back as soon as the next one may be read.
func (s *shim) step(turn chan<- struct{}) error {
	if !s.isBusy() {
		awaitBriefly(s.control.fd, -1)
	}
	f, err := s.control.decoder.Next()
	if err != nil {
		return err
	}
	var req Request
	if err := json.Unmarshal(f.Payload, &req); err != nil {
		return err
	}
	if req.Op == OpStart {
		if c := s.start(f.Channel, &req); c != nil && !c.endsBriefly() {
			turn <- struct{}{}
			c.supervise()
			return nil
		}
	} else {
		s.act(f.Channel, &req)
	}
	turn <- struct{}{}
	return nil
}

func (s *shim) start(channel uint32, req *Request) *command {
	c, err := start(s.control, s.victims, channel, req, s.control.takeFDs())
	if err != nil {
		s.leaveDirectory()
		s.control.send(frame.Error, channel, fault.From(err, fault.StartFailed))
		return nil
	}
	s.leaveDirectory()
	s.mu.Lock()
	s.current = c
	s.mu.Unlock()
	s.control.send(frame.Result, channel, &Started{PID: c.leader, UnixNS: c.began.UnixNano()})
	return c
}

// leaveDirectory lets go of the last command's working directory, so that it can be unmounted.
func (s *shim) leaveDirectory() { _ = syscall.Chdir("/") }

// isBusy tells whether a command's tree is there.
func (s *shim) isBusy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return false
	}
	select {
	case <-s.current.empty:
		return false
	default:
		return true
	}
}

func (s *shim) act(channel uint32, req *Request) {
	s.mu.Lock()
	c := s.current
	s.mu.Unlock()
	var err error
	switch {
	case c == nil:
		err = fault.New(fault.ProcessNotFound, "nothing has been started")
	case req.Op == OpKill:
		c.killTree(time.Duration(req.GraceMS) * time.Millisecond)
	case req.Tree:
		c.signalTree(syscall.Signal(req.Signal))
	default:
		err = c.signalLeader(syscall.Signal(req.Signal))
	}
	if err != nil {
		s.control.send(frame.Error, channel, fault.From(err, fault.StartFailed))
		return
	}
	s.control.send(frame.Result, channel, struct{}{})
}

// abandon ends what runs: the guest has gone, and nobody else would.
func (s *shim) abandon() {
	s.mu.Lock()
	c := s.current
	s.mu.Unlock()
	if c == nil {
		return
	}
	c.killTree(0)
	select {
	case <-c.empty:
	case <-time.After(killLimit):
	}
}

func complain(what string, err error) int {
	fmt.Fprintf(os.Stderr, "agentic-guest shim: %s: %v\n", what, err)
	return 1
}
