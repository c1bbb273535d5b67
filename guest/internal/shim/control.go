package shim

import (
	"io"
	"strconv"
	"sync"
	"syscall"

	"agentic-isolation/guest/internal/frame"
)

// control is the shim's end of the socket pair. It blocks in plain system calls: the runtime's poller would cost a
// shim another thread.
type control struct {
	fd      int
	decoder *frame.Decoder
	// fds are the descriptors that came with the bytes read so far, or were inherited.
	fds []int

	mu  sync.Mutex
	out []byte
}

func newControl(fd int) *control {
	c := &control{fd: fd}
	c.decoder = frame.NewDecoder(c)
	return c
}

// Read is for the decoder.
func (c *control) Read(p []byte) (int, error) {
	var oob [64]byte
	for {
		n, oobn, _, _, err := syscall.Recvmsg(c.fd, p, oob[:], recvFlags)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if err := c.keep(oob[:oobn]); err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

func (c *control) keep(oob []byte) error {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		closeOnExec(fds)
		c.fds = append(c.fds, fds...)
	}
	return nil
}

// inherit takes the descriptors after the control socket for received.
func (c *control) inherit(args []string) error {
	for _, arg := range args {
		count, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		for fd := c.fd + 1; fd <= c.fd+count; fd++ {
			syscall.CloseOnExec(fd)
			c.fds = append(c.fds, fd)
		}
	}
	return nil
}

// takeFDs hands over the descriptors received; the caller closes them.
func (c *control) takeFDs() []int {
	fds := c.fds
	c.fds = nil
	return fds
}

// send fails only when the guest has gone, which the next read tells as well.
func (c *control) send(t frame.Type, channel uint32, v any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, err := frame.AppendJSON(c.out[:0], t, channel, v)
	if err != nil {
		return
	}
	c.out = out
	for len(out) > 0 {
		n, err := write(c.fd, out)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return
		}
		out = out[n:]
	}
}
