package server

import (
	"runtime"
	"sync"
	"time"
)

const (
	maxProcessors = 4
	// wideFor is how long the runtime keeps its processors after they were last needed.
	wideFor = time.Second
)

// processors gives the runtime one processor, whose goroutines hand over to each other in place of waking another thread
// for each. It has more while an operation on files, which may block in a system call, would hold others up.
type processors struct {
	most int

	mu sync.Mutex
	// busy counts the operations that are under way, blocking those of them that are about files.
	busy, blocking int
	wide           bool
	// neededAt is when last there was more under way than one serves.
	neededAt time.Time
}

func newProcessors() *processors {
	p := &processors{most: min(runtime.GOMAXPROCS(0), maxProcessors)}
	runtime.GOMAXPROCS(1)
	return p
}

// begin tells of an operation that is under way until end, and whether it may block.
func (p *processors) begin(blocks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy++
	if blocks {
		p.blocking++
	}
	if !p.needed() || p.most == 1 {
		return
	}
	p.neededAt = time.Now()
	if !p.wide {
		p.wide = true
		runtime.GOMAXPROCS(p.most)
		time.AfterFunc(wideFor, p.narrow)
	}
}

func (p *processors) end(blocks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.needed() {
		p.neededAt = time.Now()
	}
	p.busy--
	if blocks {
		p.blocking--
	}
}

// needed tells whether one processor is too few; the caller holds mu.
func (p *processors) needed() bool { return p.busy > 1 && p.blocking > 0 }

// narrow takes the other processors back once they have not been needed for a while.
func (p *processors) narrow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := wideFor - time.Since(p.neededAt)
	if p.needed() {
		left = wideFor
	}
	if left > 0 {
		time.AfterFunc(left, p.narrow)
		return
	}
	p.wide = false
	runtime.GOMAXPROCS(1)
}
