package pool

import (
	"time"

	"agentic-isolation/guest/internal/fault"
)

// turnLimit is how long a command waits for room.
const turnLimit = 10 * time.Second

// Start starts a command. The observer may be called before Start returns. While there is no room for another process,
// and commands run whose end makes some, it waits for its turn: a burst is slow, not refused.
func (p *Pool) Start(spec *Spec, observer Observer) (*Tree, error) {
	timer := time.NewTimer(turnLimit)
	defer timer.Stop()
	for waited := false; ; waited = true {
		busy := p.busy()
		tree, err := p.start(spec, observer)
		if !fault.Is(err, fault.ProcessLimit) {
			if waited {
				// Where there was room for one there may be room for the next.
				demand(p.freed)
			}
			return tree, err
		}
		if !busy {
			return nil, err
		}
		select {
		case <-p.freed:
		case <-timer.C:
			return nil, err
		case <-p.quit:
			return nil, errClosed
		}
	}
}

func (p *Pool) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.bound)+p.starting > 0
}
