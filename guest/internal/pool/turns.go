package pool

import (
	"time"

	"agentic-isolation/guest/internal/fault"
)

const (
	// turnLimit is how long a command waits for room.
	turnLimit = 10 * time.Second
	// firstRetry and lastRetry are between its attempts: processes end without a word, too.
	firstRetry = 5 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

// Start starts a command. The observer may be called before Start returns. While there is no room for another process,
// and commands run whose end makes some, it waits for its turn: a burst is slow, not refused.
func (p *Pool) Start(spec *Spec, observer Observer) (*Tree, error) {
	timer := time.NewTimer(turnLimit)
	defer timer.Stop()
	waited := false
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
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
		waited = true
		select {
		case <-p.freed:
		case <-time.After(retry):
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
