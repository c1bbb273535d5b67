package pool

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/proctree"
)

const (
	sweepLimit = 5 * time.Second
	firstSweep = 2 * time.Millisecond
	lastSweep  = 200 * time.Millisecond
	// cleanLooks are how often in a row nobody must be found where nobody may be left: what forks and ends for ever is
	// missed by some.
	cleanLooks = 3
)

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

// sweep kills what was re-parented to the guest, with all descendants, and returns how many it could not kill: 0 when
// nobody was found so many times in a row.
func (p *Pool) sweep(clean int) int {
	limit := time.Now().Add(sweepLimit)
	retry := firstSweep
	for found := 0; ; time.Sleep(retry) {
		left := p.killStrays()
		if left > 0 {
			found, retry = 0, min(2*retry, lastSweep)
		} else if found, retry = found+1, firstSweep; found >= clean {
			return 0
		}
		if time.Now().After(limit) {
			return max(left, 1)
		}
	}
}

func (p *Pool) killStrays() int {
	p.forks.Lock()
	defer p.forks.Unlock()
	all, err := proctree.Snapshot()
	if err != nil {
		return uncounted(err)
	}
	self, ours := os.Getpid(), syscall.Getpgrp()
	left := 0
	for _, s := range proctree.BelowFunc(all, func(q proctree.Proc) bool { return q.Parent == self && p.shims[q.PID] == nil }) {
		if !s.Zombie() {
			left++
			if s.Group > 1 && s.Group != ours {
				// All at once, which those that fork and end for ever do not outrun. Whoever is in it is of the same tree: shims
				// and commands have sessions of their own.
				_ = syscall.Kill(-s.Group, syscall.SIGKILL)
			}
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
