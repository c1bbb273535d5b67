package process

import (
	"fmt"
	"os"

	"agentic-isolation/guest/internal/fault"
)

// plumb makes the process's pipes or terminal, and returns the command's ends of them, which the caller closes.
func (p *Process) plumb() (stdio [3]*os.File, err error) {
	what := "pipes"
	if p.Terminal != nil {
		what = "terminal"
		stdio, err = p.plumbTerminal()
	} else {
		stdio, err = p.plumbPipes()
	}
	if err != nil {
		return stdio, fault.From(fmt.Errorf("cannot make the %s of the process: %w", what, err), fault.StartFailed)
	}
	return stdio, nil
}

func (p *Process) plumbPipes() (stdio [3]*os.File, err error) {
	if p.Stdin || p.Input {
		var ours *os.File
		if ours, stdio[0], err = newPipe(false); err == nil {
			p.input = newInput(ours, false)
		}
		if err == nil && p.Stdin {
			p.stdin, err = p.input.open(false)
		}
	} else {
		stdio[0], err = os.Open(os.DevNull)
	}
	for source := range sources {
		if err != nil {
			break
		}
		var ours *os.File
		if ours, stdio[1+source], err = newPipe(true); err == nil {
			err = p.addPump(source, ours)
		}
	}
	return stdio, err
}

func (p *Process) plumbTerminal() (stdio [3]*os.File, err error) {
	if p.terminal, err = newTerminal(*p.Terminal, p.User); err != nil {
		return stdio, err
	}
	p.input = newInput(p.terminal.master, true)
	for i := range stdio {
		if stdio[i], err = duplicate(p.terminal.slave); err != nil {
			return stdio, err
		}
	}
	output, err := duplicate(p.terminal.master)
	if err != nil {
		return stdio, err
	}
	return stdio, p.addPump(Stdout, output)
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

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
