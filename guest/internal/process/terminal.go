package process

import (
	"os"
	"syscall"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/kernel"
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
	if kernel.IsGVisor() {
		p.announceSize()
	}
	return nil
}

// announceSize tells the programs of a terminal that its size has changed, which not every gVisor does by itself
// (google/gvisor#13317). Who does not care is not harmed.
func (p *Process) announceSize() {
	if group := foreground(p.terminal.master); group > 1 {
		_ = syscall.Kill(-group, syscall.SIGWINCH)
		return
	}
	_ = p.tree.Signal(int(syscall.SIGWINCH), true)
}

// SignalForeground signals the foreground process group of the process's terminal, and the command where there is none.
func (p *Process) SignalForeground(signal int) error {
	if p.terminal == nil {
		return p.Signal(signal, false)
	}
	switch group := foreground(p.terminal.master); {
	case group > 1:
		switch err := syscall.Kill(-group, syscall.Signal(signal)); err {
		case nil:
			return nil
		case syscall.ESRCH:
		default:
			return fault.New(fault.PermissionDenied, "signal %d: %v", signal, err)
		}
	case p.input.key(signalKey(p.terminal.master, syscall.Signal(signal))):
		// Not every gVisor tells the group, but all signal it by the terminal's keys.
		return nil
	}
	return p.Signal(signal, false)
}
