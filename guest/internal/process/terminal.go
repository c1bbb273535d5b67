package process

import (
	"os"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

// Size is that of a terminal, in characters.
type Size struct {
	Columns, Rows uint16
}

// terminal is the guest's part in a process's pseudo-terminal.
type terminal struct {
	// master is only controlled; the process's input and pump have descriptors of their own.
	master *os.File
	// slave is held until the command ends: a command that closes all of its own may open the terminal again.
	slave *os.File
}

func (t *terminal) close() {
	t.master.Close()
	t.slave.Close()
}

// Resize changes the size of the process's terminal.
func (p *Process) Resize(size Size) error {
	if p.terminal == nil {
		return fault.New(fault.NoTerminal, "process %q has no terminal", p.ID)
	}
	if err := setSize(p.terminal.master, size); err != nil {
		return fault.New(fault.ProcessNotFound, "the terminal of process %q has ended: %v", p.ID, err)
	}
	return nil
}

// SignalForeground signals the foreground process group of the process's terminal, and the command where there is none.
func (p *Process) SignalForeground(signal int) error {
	if p.terminal == nil {
		return p.Signal(signal, false)
	}
	group := foreground(p.terminal.master)
	if group <= 1 {
		return p.Signal(signal, false)
	}
	switch err := syscall.Kill(-group, syscall.Signal(signal)); err {
	case nil:
		return nil
	case syscall.ESRCH:
		return p.Signal(signal, false)
	default:
		return fault.New(fault.PermissionDenied, "signal %d: %v", signal, err)
	}
}
