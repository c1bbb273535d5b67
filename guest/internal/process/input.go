package process

import (
	"os"
	"sync"
	"syscall"

	"agentic-isolation/guest/internal/fault"
)

// ErrInputOver tells that a command's standard input takes no more: it was ended, or the command has.
var ErrInputOver error = fault.New(fault.ProcessNotFound, "the input of the process has ended")

var (
	errInputTaken error = fault.New(
		fault.InputTaken, "another attachment writes to the process: take_input takes its place, read_only leaves it there",
	)
	errWriterClose error = fault.New(fault.Cancelled, "the writer of the process's input was closed")
)

// none is no byte.
const none = -1

// input is a command's standard input: a pipe, or the guest's end of its terminal. One writer at a time may write to it;
// without one it stays open and silent.
type input struct {
	// file is what writers duplicate, so that closing a writer wakes it and nobody else.
	file     *os.File
	terminal bool

	mu     sync.Mutex
	writer *Writer
	// taken counts the bytes that writers have got rid of, and ended tells that there will be no more.
	taken uint64
	ended bool
	// last is the byte that was written last; none at the beginning of a line.
	last int
}

func newInput(file *os.File, terminal bool) *input {
	return &input{file: file, terminal: terminal, last: none}
}

// Writer writes to a command's standard input until it is over.
type Writer struct {
	input *input
	file  *os.File
	raw   syscall.RawConn
	over  chan struct{}
	// gone is closed when nobody writes by it any more, which it may not have noticed yet; nil: it does not tell.
	gone <-chan struct{}
	// err is why it is over; input.mu guards it.
	err error
}

// open makes a writer, in place of another one where take allows it, after which the other one writes nothing more. One
// by which nobody writes any more is in nobody's way.
func (in *input) open(take bool, gone <-chan struct{}) (*Writer, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.writer != nil && in.writer.isLeft() {
		in.writer.finish(errWriterClose)
	}
	w := &Writer{input: in, over: make(chan struct{}), gone: gone}
	if in.ended {
		w.finish(ErrInputOver)
		return w, nil
	}
	if in.writer != nil && !take {
		return nil, errInputTaken
	}
	var err error
	if w.file, err = duplicate(in.file); err == nil {
		w.raw, err = w.file.SyscallConn()
	}
	if err != nil {
		return nil, fault.New(fault.StartFailed, "cannot open the input of the process: %v", err)
	}
	if in.writer != nil {
		in.writer.finish(errInputTaken)
	}
	in.writer = w
	return w, nil
}

// close ends the input for good.
func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.end()
	in.file.Close()
}

// key types a character beside the writer, where that is possible at once, which it reports.
func (in *input) key(character byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if character == 0 {
		return false
	}
	raw, err := in.file.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	controlErr := raw.Control(func(fd uintptr) { n, err = writeFD(int(fd), []byte{character}) })
	if controlErr != nil || err != nil || n == 0 {
		return false
	}
	in.last = none
	return true
}

func (in *input) end() {
	in.ended = true
	if in.writer != nil {
		in.writer.finish(ErrInputOver)
	}
}

// finish makes the writer over and wakes it; the caller holds input.mu.
func (w *Writer) finish(err error) {
	if w.err != nil {
		return
	}
	w.err = err
	close(w.over)
	if w.file != nil {
		go w.file.Close() // it waits for a write under way, which waits for the lock
	}
	if w.input.writer == w {
		w.input.writer = nil
	}
}

func (w *Writer) isLeft() bool {
	select {
	case <-w.gone:
		return true
	default:
		return false
	}
}

// Close takes the writer away and leaves the input open: the end of a part must not look like the end of the whole.
func (w *Writer) Close() {
	w.input.mu.Lock()
	defer w.input.mu.Unlock()
	w.finish(errWriterClose)
}

// Over is closed when nothing more can be written by this writer.
func (w *Writer) Over() <-chan struct{} { return w.over }

// Err is why the writer is over; nil while it is not.
func (w *Writer) Err() error {
	w.input.mu.Lock()
	defer w.input.mu.Unlock()
	return w.err
}

// Progress tells how many bytes have been taken of all writers, and whether there will be no more.
func (w *Writer) Progress() (taken uint64, ended bool) {
	w.input.mu.Lock()
	defer w.input.mu.Unlock()
	return w.input.taken, w.input.ended
}

// Write writes b, and blocks while the command does not read. Taken is told of each part as it is taken. What a command
// does not want, as it has closed its standard input, is thrown away. Once the writer is over, Write fails with the reason.
func (w *Writer) Write(b []byte, taken func(n int)) error {
	for len(b) > 0 {
		n, err := w.attempt(b, true)
		if err != nil {
			return err
		}
		taken(n)
		b = b[n:]
	}
	return nil
}

// End ends the input: a pipe is closed, in a terminal its end-of-file character is typed.
func (w *Writer) End() error {
	if w.input.terminal {
		if err := w.typeEnd(); err != nil {
			return err
		}
	}
	in := w.input
	in.mu.Lock()
	defer in.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	in.end()
	if !in.terminal {
		in.file.Close()
	}
	return nil
}

// typeEnd types the terminal's end-of-file character. It ends a line that has begun, and the input at its beginning.
func (w *Writer) typeEnd() error {
	for {
		w.input.mu.Lock()
		character, again := endOfFile(w.input.file, w.input.last)
		w.input.mu.Unlock()
		if character == 0 {
			return nil
		}
		if _, err := w.attempt([]byte{character}, false); err != nil {
			return err
		}
		if !again {
			return nil
		}
	}
}

// attempt writes once, as soon as something can be written. Typed characters are none of the bytes that are counted.
func (w *Writer) attempt(b []byte, counted bool) (n int, err error) {
	if w.file == nil {
		return 0, ErrInputOver
	}
	waitErr := w.raw.Write(func(fd uintptr) bool {
		n, err = w.put(int(fd), b, counted)
		return err != syscall.EAGAIN
	})
	if waitErr == nil {
		return n, err
	}
	w.input.mu.Lock()
	defer w.input.mu.Unlock()
	if w.err == nil {
		return 0, waitErr
	}
	return 0, w.err
}

func (w *Writer) put(fd int, b []byte, counted bool) (int, error) {
	in := w.input
	in.mu.Lock()
	defer in.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	n, err := writeFD(fd, b)
	switch {
	case err == syscall.EAGAIN, err == nil && n == 0:
		return 0, syscall.EAGAIN
	case err != nil:
		n = len(b) // nobody reads it any more
	}
	if counted {
		in.taken += uint64(n)
	}
	if in.last = none; counted {
		in.last = int(b[n-1])
	}
	return n, nil
}

func writeFD(fd int, b []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, b)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// duplicate makes another descriptor of the same open file.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := duplicateFD(f)
	if err != nil {
		return nil, err
	}
	return newFile(fd, f.Name())
}

// duplicateFD is duplicate that returns the bare descriptor.
func duplicateFD(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	controlErr := raw.Control(func(old uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, err = syscall.Dup(int(old)); err == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if controlErr != nil {
		return -1, controlErr
	}
	return fd, err
}

// OpenInput makes a writer of a process whose run asked for an input, in place of another one where take allows it. gone
// is closed when nobody writes by it any more.
func (p *Process) OpenInput(take bool, gone <-chan struct{}) (*Writer, error) {
	if !p.Input {
		return nil, fault.New(fault.BadRequest, "process_id: the run of process %q has asked for no input", p.ID)
	}
	return p.input.open(take, gone)
}

// Feeder is the writer of a process whose run has brought a standard input.
func (p *Process) Feeder() *Writer { return p.stdin }
