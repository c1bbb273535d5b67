package pool

import (
	"net"
	"os"
	"syscall"

	"agentic-isolation/guest/internal/shim"
)

// shimEnv is all that a shim inherits: commands get their own environment with each start request.
var shimEnv = []string{"GOMAXPROCS=1", "GOGC=50"}

// spawn starts a shim. It is neither idle nor bound yet.
func (p *Pool) spawn() (*worker, error) {
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
	files := [shim.ControlFD + 1]uintptr{null.Fd(), null.Fd(), os.Stderr.Fd()}
	files[shim.ControlFD] = uintptr(pair[1])

	p.forks.Lock()
	defer p.forks.Unlock()
	if p.ending {
		conn.Close()
		return nil, errClosed
	}
	pid, err := syscall.ForkExec(p.program, []string{"agentic-guest", "shim"}, &syscall.ProcAttr{
		Env:   shimEnv,
		Files: files[:],
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
