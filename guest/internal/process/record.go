package process

import (
	"time"

	"agentic-isolation/guest/internal/fault"
)

// record is a process together with who is interested in it. The table's lock guards it.
type record struct {
	id string
	// request is the digest of what was asked. A process that has one outlives everybody's interest for a while, so that
	// who asks again is told what became of it.
	request string
	// process is nil while it is being started.
	process *Process
	viewers int
	// observers look on without being viewers. A record that is forgotten while some do is kept for them, as long as there
	// is room, but nobody finds it any more.
	observers int
	forgotten bool
	// timer is what happens next to a process that nobody views: its linger or its window ends.
	timer *time.Timer
	// unwanted: nobody may come back; without a request it is forgotten as soon as it has ended.
	unwanted bool
	// overdue: its window is over, and it only stays while somebody views it.
	overdue bool
	// delivered: somebody has been told the result.
	delivered bool
	// size is what it takes once finished, in bytes.
	size int
}

// refuse tells why a run must not begin where this record is.
func (r *record) refuse(request string) error {
	if request != "" && request != r.request {
		return fault.New(fault.RequestConflict, "process %q exists, and something else was asked for", r.id)
	}
	return fault.New(fault.ProcessExists, "process %q exists", r.id)
}

func (r *record) stopTimer() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

// schedule has something done to a record after a while, in place of what was planned. The caller holds the lock.
func (t *Table) schedule(r *record, after time.Duration, act func(*record)) {
	r.stopTimer()
	var timer *time.Timer
	timer = time.AfterFunc(after, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if r.timer == timer {
			r.timer = nil
			act(r)
		}
	})
	r.timer = timer
}
