package server

import (
	"runtime"
	"sync"
	"time"
)

const (
	maxProcessors = 4
	// fewOperations are served by one processor.
	fewOperations = 1
	// wideFor is how long the runtime keeps its processors after they were last needed.
	wideFor = time.Second
)

// processors gives the runtime one processor while hardly anything is under way, and more while there is: with one, what
// a command sets off runs on one thread after the other in place of waking another thread for each.
type processors struct {
	most int

	mu   sync.Mutex
	busy int
	wide bool
	// neededAt is when last there was more under way than one serves.
	neededAt time.Time
}

func newProcessors() *processors {
	p := &processors{most: min(runtime.GOMAXPROCS(0), maxProcessors)}
	runtime.GOMAXPROCS(1)
	return p
}

// begin tells of an operation that is under way until end.
func (p *processors) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy++
	if p.busy <= fewOperations || p.most == 1 {
		return
	}
	p.neededAt = time.Now()
	if !p.wide {
		p.wide = true
		runtime.GOMAXPROCS(p.most)
		time.AfterFunc(wideFor, p.narrow)
	}
}

func (p *processors) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy > fewOperations {
		p.neededAt = time.Now()
	}
	p.busy--
}

// narrow takes the other processors back once they have not been needed for a while.
func (p *processors) narrow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := wideFor - time.Since(p.neededAt)
	if p.busy > fewOperations {
		left = wideFor
	}
	if left > 0 {
		time.AfterFunc(left, p.narrow)
		return
	}
	p.wide = false
	runtime.GOMAXPROCS(1)
}
