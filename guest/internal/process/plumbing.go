package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/fault"
)

// stdio is the descriptors of a command's standard input, output and error; -1 is none.
type stdio [3]int

// null is the input of commands that have none. It stays open once it could be opened.
var null = nullDevice{fd: -1}

type nullDevice struct {
	mu sync.Mutex
	fd int
}

func (n *nullDevice) open() (fd int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd < 0 {
		n.fd, err = syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	}
	return n.fd, err
}

func (n *nullDevice) is(fd int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fd == n.fd
}

var errNoWatch = errors.New("the kernel has no room for another watch of this user's (epoll(7), max_user_watches)")

// newFile makes a file that the runtime's poller waits for, and closes the descriptor where it cannot: whoever read from it
// would take that for its end.
func newFile(fd int, name string) (*os.File, error) {
	f := os.NewFile(uintptr(fd), name)
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, errNoWatch
	}
	return f, nil
}

// plumb makes the process's pipes or terminal, and returns the command's ends of them, which the caller closes.
func (p *Process) plumb() (ends stdio, err error) {
	ends = stdio{-1, -1, -1}
	what := "pipes"
	if p.Terminal != nil {
		what = "terminal"
		err = p.plumbTerminal(&ends)
	} else {
		err = p.plumbPipes(&ends)
	}
	if err != nil {
		return ends, fault.From(fmt.Errorf("cannot make the %s of the process: %w", what, err), fault.StartFailed)
	}
	return ends, nil
}

func (p *Process) plumbPipes(ends *stdio) (err error) {
	if p.Stdin || p.Input {
		var ours *os.File
		if ours, ends[0], err = newPipe(false); err == nil {
			p.input = newInput(ours, false)
		}
		if err == nil && p.Stdin {
			p.stdin, err = p.input.open(false, nil)
		}
	} else {
		ends[0], err = null.open()
	}
	for source := range sources {
		if err != nil {
			break
		}
		var ours *os.File
		if ours, ends[1+source], err = newPipe(true); err == nil {
			err = p.addPump(source, ours)
		}
	}
	return err
}

func (p *Process) plumbTerminal(ends *stdio) (err error) {
	if p.terminal, err = newTerminal(*p.Terminal, p.User); err != nil {
		return err
	}
	p.input = newInput(p.terminal.master, true)
	for i := range ends {
		if ends[i], err = duplicateFD(p.terminal.slave); err != nil {
			return err
		}
	}
	output, err := duplicate(p.terminal.master)
	if err != nil {
		return err
	}
	return p.addPump(Stdout, output)
}

func (p *Process) addPump(source Source, pipe *os.File) error {
	pump, err := newPump(source, pipe, p.Lines && !p.Capture, p.Redact, p.take)
	if err != nil {
		pipe.Close()
		return err
	}
	p.pumps = append(p.pumps, pump)
	p.pumping++
	return nil
}

// unplumb gives back what plumb has made, of a process that does not start.
func (p *Process) unplumb() {
	for _, pump := range p.pumps {
		pump.pipe.Close()
	}
	p.endInput()
}

// endInput ends the command's standard input and terminal: it reads no more.
func (p *Process) endInput() {
	if p.input != nil {
		p.input.close()
	}
	if p.terminal != nil {
		p.terminal.close()
	}
}

// close closes what was made for one command.
func (s stdio) close() {
	if null.is(s[0]) {
		s[0] = -1
	}
	for _, fd := range s {
		closeFD(fd)
	}
}

func closeFD(fd int) {
	if fd >= 0 {
		syscall.Close(fd)
	}
}
