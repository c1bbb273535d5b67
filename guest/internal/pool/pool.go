// Package pool keeps the guest's shims: it starts them, binds one to each running command, and reaps.
package pool

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/fault"
)

const (
	// keepIdle shims stay for good; more than that only briefly, as the next burst may want them.
	keepIdle = 4
	overIdle = time.Second
	// patience is how long a shim may take to answer. One that is stopped or starved loses its command.
	patience = 10 * time.Second
	exitWait = 7 * time.Second
	// reapWait is how long a shim that was killed may take to be reaped.
	reapWait = time.Second
)

// Pool owns every child of the guest.
type Pool struct {
	program string
	// limit is how many trees there may be at a time.
	limit int

	// forks is held while a child is started and entered in shims, so that the reaper and the sweeper never take a
	// shim that is not entered yet for a stranger.
	forks  sync.Mutex
	shims  map[int]*worker
	ending bool

	mu    sync.Mutex
	idle  []*worker
	bound map[*worker]struct{}
	// starting counts the shims on their way to being bound.
	starting int
	closed   bool
	// thinning: a look at what is idle beyond keepIdle is planned.
	thinning bool
	// empty is signalled when the last shim has been reaped.
	empty *sync.Cond

	low    chan struct{}
	strays chan struct{}
	// freed is signalled when a command's end has made room for another.
	freed chan struct{}
	quit  chan struct{}
	tasks sync.WaitGroup
}

// New starts reaping, and one shim in advance. The pool binds at most limit shims at a time.
func New(limit int) *Pool {
	p := &Pool{
		program: selfProgram(),
		limit:   limit,
		shims:   map[int]*worker{},
		bound:   map[*worker]struct{}{},
		low:     make(chan struct{}, 1),
		strays:  make(chan struct{}, 1),
		freed:   make(chan struct{}, 1),
		quit:    make(chan struct{}),
	}
	p.empty = sync.NewCond(&p.forks)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	p.tasks.Go(func() { p.reap(children) })
	p.tasks.Go(func() { p.onDemand(p.strays, func() { p.sweep(1) }) })
	p.tasks.Go(func() { p.onDemand(p.low, p.warm) })
	demand(p.low)
	return p
}

func (p *Pool) onDemand(signalled <-chan struct{}, act func()) {
	for {
		select {
		case <-signalled:
			act()
		case <-p.quit:
			return
		}
	}
}

func demand(signalled chan<- struct{}) {
	select {
	case signalled <- struct{}{}:
	default:
	}
}

// warm adds an idle shim if there is none.
func (p *Pool) warm() {
	p.mu.Lock()
	needed := len(p.idle) == 0 && !p.closed
	p.mu.Unlock()
	if !needed {
		return
	}
	w, err := p.spawn(nil)
	if err != nil && err != errClosed {
		fmt.Fprintf(os.Stderr, "agentic-guest: cannot start a shim in advance: %v\n", err)
	}
	if err == nil {
		p.release(w)
	}
}

// take binds an idle shim, or a new one, which inherits the descriptors if there are any.
func (p *Pool) take(fds []int) (*worker, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if len(p.bound)+p.starting >= p.limit {
		p.mu.Unlock()
		return nil, fault.New(fault.ProcessLimit, "%d commands, or what they have left in the background, are running, "+
			"as many as may", p.limit)
	}
	if n := len(p.idle); n > 0 && len(fds) == 0 {
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.bind(w)
		p.mu.Unlock()
		if n == 1 {
			demand(p.low)
		}
		return w, nil
	}
	p.starting++
	p.mu.Unlock()
	w, err := p.spawn(fds)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting--
	if err != nil {
		if err == errClosed || err == errNoRoom {
			return nil, err
		}
		if errors.Is(err, syscall.EAGAIN) {
			return nil, fault.New(fault.ProcessLimit, "no more processes can be started: %v", err)
		}
		return nil, fault.New(fault.StartFailed, "cannot start a shim: %v", err)
	}
	if p.closed {
		w.dismiss()
		return nil, errClosed
	}
	p.bind(w)
	return w, nil
}

// bind enters a shim that is to run a command; the caller holds mu.
func (p *Pool) bind(w *worker) {
	w.shared = len(p.bound) > 0
	if len(p.bound) == 1 {
		for other := range p.bound {
			other.shared = true
		}
	}
	p.bound[w] = struct{}{}
}

func (p *Pool) isShared(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.shared
}

var errClosed error = fault.New(fault.ShuttingDown, "the guest is ending")

// release takes a shim whose tree is empty back.
func (p *Pool) release(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.bound, w)
	if p.closed || w.lost() {
		w.dismiss()
		return
	}
	w.idleSince = time.Now()
	p.idle = append(p.idle, w)
	p.planThinning()
}

// planThinning has the shims beyond those that stay looked at when the oldest of them has been idle too long.
func (p *Pool) planThinning() {
	if p.thinning || len(p.idle) <= keepIdle || p.closed {
		return
	}
	p.thinning = true
	time.AfterFunc(time.Until(p.idle[0].idleSince.Add(overIdle)), p.thin)
}

// thin dismisses shims that no burst has needed for a while. The latest used are taken first, so the oldest lie idle.
func (p *Pool) thin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thinning = false
	extra := 0
	for extra < len(p.idle)-keepIdle && time.Since(p.idle[extra].idleSince) >= overIdle {
		p.idle[extra].dismiss()
		extra++
	}
	p.idle = slices.Delete(p.idle, 0, extra)
	p.planThinning()
}

// forget drops a shim that has died.
func (p *Pool) forget(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.bound, w)
	if i := slices.Index(p.idle, w); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
}

// Close kills every tree, ends every shim, and returns when all are reaped or when it has waited long enough.
func (p *Pool) Close() {
	p.forks.Lock()
	p.ending = true
	p.forks.Unlock()
	p.mu.Lock()
	p.closed = true
	for _, w := range p.idle {
		w.dismiss()
	}
	p.idle = nil
	for w := range p.bound {
		// A shim whose guest hangs up kills its tree.
		w.dismiss()
	}
	p.mu.Unlock()
	if !p.awaitNoShims(exitWait) {
		p.forks.Lock()
		for pid := range p.shims {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		p.forks.Unlock()
		p.awaitNoShims(time.Second)
	}
	p.sweep(cleanLooks)
	close(p.quit)
	p.tasks.Wait()
}

func (p *Pool) awaitNoShims(limit time.Duration) bool {
	late := false
	timer := time.AfterFunc(limit, func() {
		p.forks.Lock()
		late = true
		p.forks.Unlock()
		p.empty.Broadcast()
	})
	defer timer.Stop()
	p.forks.Lock()
	defer p.forks.Unlock()
	for len(p.shims) > 0 && !late {
		p.empty.Wait()
	}
	return len(p.shims) == 0
}
