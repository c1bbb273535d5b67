package pool

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/proctree"
)

const sweepLimit = 5 * time.Second

// reap reaps the guest's children: shims, and orphans that outlived theirs.
func (p *Pool) reap(children chan os.Signal) {
	defer signal.Stop(children)
	for {
		select {
		case <-children:
			p.reapAll()
		case <-p.quit:
			return
		}
	}
}

func (p *Pool) reapAll() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if status.Stopped() {
			p.resume(pid)
			continue
		}
		p.forks.Lock()
		w := p.shims[pid]
		delete(p.shims, pid)
		if len(p.shims) == 0 {
			p.empty.Broadcast()
		}
		p.forks.Unlock()
		if w != nil {
			close(w.reaped)
		}
		// Either a shim has left orphans, or this was one and may have left its own children.
		demand(p.strays)
	}
}

// resume lets a shim go on that somebody has stopped: a workload of the same user can, and its command would hang.
func (p *Pool) resume(pid int) {
	p.forks.Lock()
	defer p.forks.Unlock()
	if p.shims[pid] != nil {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// sweep kills what was re-parented to the guest, with all descendants, and returns how many it could not kill.
func (p *Pool) sweep() int {
	limit := time.Now().Add(sweepLimit)
	for retry := 2 * time.Millisecond; ; retry = min(2*retry, 200*time.Millisecond) {
		left := p.killStrays()
		if left == 0 || time.Now().After(limit) {
			return left
		}
		time.Sleep(retry)
	}
}

func (p *Pool) killStrays() int {
	p.forks.Lock()
	defer p.forks.Unlock()
	all, err := proctree.Snapshot()
	if err != nil {
		return uncounted(err)
	}
	self := os.Getpid()
	left := 0
	for _, s := range proctree.BelowFunc(all, func(q proctree.Proc) bool { return q.Parent == self && p.shims[q.PID] == nil }) {
		if !s.Zombie() {
			left++
			_ = syscall.Kill(s.PID, syscall.SIGKILL)
		}
	}
	return left
}

// uncounted is how many processes are taken to be left where they cannot be looked at: none where they never can, and
// one where that may pass, as a want of descriptors does.
func uncounted(err error) int {
	if errors.Is(err, errors.ErrUnsupported) {
		return 0
	}
	return 1
}
