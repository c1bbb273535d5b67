package server

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// restAfter is how long nothing must have been under way until the guest gives memory back. Sooner, a command that
// comes now and then would have to fetch it again.
const restAfter = 15 * time.Second

// rest gives back the memory that the guest has needed for a time but no longer does.
type rest struct {
	mu       sync.Mutex
	busy     int
	lastBusy time.Time
	planned  bool
}

// begin tells of an operation that is under way until end.
func (r *rest) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy++
}

func (r *rest) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
	r.lastBusy = time.Now()
	if !r.planned {
		r.planned = true
		time.AfterFunc(restAfter, r.look)
	}
}

func (r *rest) look() {
	if left := r.left(); left > 0 {
		time.AfterFunc(left, r.look)
		return
	}
	runtime.GC() // what pools hold is kept through one collection
	debug.FreeOSMemory()
}

// left is the time until it may be worth to look again; 0 when the guest rests.
func (r *rest) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy > 0 {
		return restAfter
	}
	left := max(restAfter-time.Since(r.lastBusy), 0)
	r.planned = left > 0
	return left
}
