package process

import "time"

// WriteStdin writes to the command's standard input and blocks while its pipe is full. It reports whether the
// command still reads; when it does not, there is nothing that a writer could do about it.
func (p *Process) WriteStdin(b []byte) bool {
	_, err := p.stdin.Write(b)
	return err == nil
}

// AbandonStdin wakes a blocked writer, whose service has gone, and leaves the command's standard input open: the end
// of a part must not look like the end of the whole.
func (p *Process) AbandonStdin() {
	if p.stdin != nil {
		_ = p.stdin.SetWriteDeadline(time.Now())
	}
}

// CloseStdin ends the command's standard input.
func (p *Process) CloseStdin() { p.closeStdin() }

// closeStdin also wakes a blocked writer. Closing twice is harmless.
func (p *Process) closeStdin() {
	if p.stdin != nil {
		p.stdin.Close()
	}
}
