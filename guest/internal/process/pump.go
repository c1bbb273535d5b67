package process

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/redact"
)

// lingering is how long a result waits for processes that keep the command's output open.
const lingering = 200 * time.Millisecond

// buffers are for one read each, behind as much of an unfinished line.
var buffers = sync.Pool{New: func() any { return new([2 * frame.MaxData]byte) }}

// scratch is for what comes of one read where secrets are replaced.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// sink takes what a pump reads. It may block, and returns for how long it did.
type sink func(source Source, b []byte, straggler bool) (blocked time.Duration)

// pump moves one output of a process from its pipe to the sink, in pieces that end at line ends where lines is set.
type pump struct {
	source Source
	pipe   *os.File
	raw    syscall.RawConn
	sink   sink
	lines  bool
	// redact replaces secrets, where that is asked for.
	redact *redact.Stream
	// partial is an unfinished line.
	partial []byte
	total   atomic.Uint64
	ending  atomic.Bool
	// alone: nobody of the tree is left, and whoever writes into the pipe is none of it.
	alone atomic.Bool
}

// newPump also replaces secrets, unless there are none.
func newPump(source Source, pipe *os.File, lines bool, secrets *redact.Values, sink sink) (*pump, error) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &pump{source: source, pipe: pipe, raw: raw, lines: lines, sink: sink}
	if secrets != nil {
		p.redact = redact.NewStream(secrets)
	}
	return p, nil
}

// run returns when the output has ended, which done is told, and nobody holds the pipe any more.
func (p *pump) run(done func()) {
	defer p.pipe.Close()
	open := p.follow()
	if open {
		open = p.finish()
	}
	// What was held back is little, and mostly the command's own: nobody waits for room for it.
	if p.redact != nil {
		p.pass(p.redact.Flush, false)
		p.redact = nil
	}
	p.emit(p.partial, false)
	p.partial = nil
	done()
	if open {
		p.discard()
	}
}

// end makes the pump finish: the command has ended, and where it was the last of it, so has its tree.
func (p *pump) end(isTree bool) {
	if isTree {
		p.alone.Store(true)
	}
	if p.ending.CompareAndSwap(false, true) {
		_ = p.pipe.SetReadDeadline(time.Now())
	}
}

// follow reads until the pipe's end, or until end is called. It reports whether the pipe is still open.
func (p *pump) follow() bool {
	for {
		_, _, err := p.read(true, false)
		if errors.Is(err, os.ErrDeadlineExceeded) && p.ending.Load() {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// finish reads what the command left in the pipe, then what others of its tree write until they have lingered long enough.
func (p *pump) finish() bool {
	_ = p.pipe.SetReadDeadline(time.Time{})
	isAlone := p.alone.Load()
	if !p.drain() {
		return false
	}
	for left := lingering; left > 0 && !p.alone.Load(); {
		since := time.Now()
		_ = p.pipe.SetReadDeadline(since.Add(left))
		_, blocked, err := p.read(true, true)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return false
		}
		left -= time.Since(since) - blocked
	}
	return isAlone || !p.alone.Load() || p.drain()
}

// drain reads what is in the pipe by now. It reports whether the pipe is still open.
func (p *pump) drain() bool {
	for left := pipeCapacity(p.raw); left > 0; {
		n, _, err := p.read(false, false)
		if err == errEmpty {
			break
		}
		if err != nil {
			return false
		}
		left -= n
	}
	return true
}

// discard spares whoever still writes a SIGPIPE.
func (p *pump) discard() {
	_ = p.pipe.SetReadDeadline(time.Time{})
	p.partial = nil
	p.sink = nil
	for {
		if _, _, err := p.read(true, true); err != nil {
			return
		}
	}
}

var errEmpty = errors.New("nothing to read now")

// read reads once and passes on what is complete. It takes a buffer only when there is something to read.
func (p *pump) read(wait, straggler bool) (n int, blocked time.Duration, err error) {
	var failure error
	var buf *[2 * frame.MaxData]byte
	held := len(p.partial) // less than frame.MaxData
	waitErr := p.raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[2 * frame.MaxData]byte)
		n, failure = readFD(int(fd), buf[held:held+frame.MaxData])
		if n > 0 {
			return true
		}
		buffers.Put(buf)
		buf = nil
		return failure != syscall.EAGAIN || !wait
	})
	switch {
	case waitErr != nil:
		return 0, 0, waitErr
	case failure == syscall.EAGAIN:
		return 0, 0, errEmpty
	case failure != nil:
		return 0, 0, failure
	case n == 0:
		return 0, 0, io.EOF
	}
	defer buffers.Put(buf)
	if p.sink == nil {
		return n, 0, nil
	}
	if p.redact != nil {
		return n, p.pass(func(dst []byte) []byte { return p.redact.Append(dst, buf[held:held+n]) }, straggler), nil
	}
	p.total.Add(uint64(n))
	copy(buf[:held], p.partial)
	rest, blocked := p.split(buf[:held+n], straggler)
	p.partial = append(p.partial[:0], rest...)
	return n, blocked, nil
}

// pass passes on what fill appends to an unfinished line, as far as it is complete.
func (p *pump) pass(fill func(dst []byte) []byte, straggler bool) (blocked time.Duration) {
	whole := scratch.Get().(*[]byte)
	defer scratch.Put(whole)
	*whole = fill(append((*whole)[:0], p.partial...))
	p.total.Add(uint64(len(*whole) - len(p.partial)))
	rest, blocked := p.split(*whole, straggler)
	p.partial = append(p.partial[:0], rest...)
	return blocked
}

func readFD(fd int, b []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, b)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// split passes b on in pieces of at most frame.MaxData and returns the unfinished line that remains.
func (p *pump) split(b []byte, straggler bool) (rest []byte, blocked time.Duration) {
	for len(b) > 0 {
		n := min(len(b), frame.MaxData)
		if p.lines {
			if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 {
				n = i + 1
			} else if n < frame.MaxData {
				return b, blocked
			}
		}
		blocked += p.emit(b[:n], straggler)
		b = b[n:]
	}
	return nil, blocked
}

func (p *pump) emit(b []byte, straggler bool) time.Duration {
	if len(b) == 0 {
		return 0
	}
	return p.sink(p.source, b, straggler)
}
