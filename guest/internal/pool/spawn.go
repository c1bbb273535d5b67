package pool

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/shim"
)

// shimEnv is all that a shim inherits: commands get their own environment with each start request.
var shimEnv = []string{"GOMAXPROCS=1", "GOGC=50"}

// errNoRoom: a runtime that gets no thread dies, which means that there may be no more processes.
var errNoRoom error = fault.New(fault.ProcessLimit, "the workspace may have no more processes")

// spawn starts a shim, which inherits descriptors for its first command, and waits until it can run commands. It is
// neither idle nor bound yet.
func (p *Pool) spawn(fds []int) (*worker, error) {
	w, err := p.fork(fds)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.ready:
		return w, nil
	case <-w.down:
	case <-timer.C:
	}
	w.destroy()
	w.dismiss()
	return nil, errNoRoom
}

func (p *Pool) fork(fds []int) (*worker, error) {
	pair, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer syscall.Close(pair[1])
	ours := os.NewFile(uintptr(pair[0]), "shim")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd(), shim.ControlFD: uintptr(pair[1])}
	argv := []string{"agentic-guest", "shim"}
	if len(fds) > 0 {
		argv = append(argv, strconv.Itoa(len(fds)))
	}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}

	p.forks.Lock()
	defer p.forks.Unlock()
	if p.ending {
		conn.Close()
		return nil, errClosed
	}
	pid, err := syscall.ForkExec(p.program, argv, &syscall.ProcAttr{
		Env:   shimEnv,
		Files: files,
		// Its own session: signals that a terminal sends to the guest's group are not for shims.
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	w := newWorker(p, pid, conn.(*net.UnixConn))
	p.shims[pid] = w
	p.tasks.Go(w.listen)
	return w, nil
}
