package process

import (
	"sync"
	"time"

	"agentic-isolation/guest/internal/cgroup"
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/pool"
)

const (
	maxRunning  = 1024
	maxFinished = 256
	// maxKeptOutput bounds the output of finished processes, in bytes.
	maxKeptOutput = 64 << 20
)

// record is a process together with who is interested in it.
type record struct {
	process *Process
	viewers int
	linger  *time.Timer
	// unwanted: nobody may come back; it is forgotten as soon as it has ended.
	unwanted bool
	finished bool
	size     int
}

// Table is the processes of the guest.
type Table struct {
	shims *pool.Pool
	group *cgroup.Group

	mu sync.Mutex
	// settled is signalled when a process has started or failed to.
	settled  *sync.Cond
	records  map[string]*record
	finished []*record // in order of their end
	kept     int       // bytes of their output
	closed   bool
}

// NewTable returns an empty table that starts processes by shims, in a control group that counts what they meet.
func NewTable(shims *pool.Pool, group *cgroup.Group) *Table {
	t := &Table{shims: shims, group: group, records: map[string]*record{}}
	t.settled = sync.NewCond(&t.mu)
	return t
}

// Start starts a process with one viewer, which must Leave.
func (t *Table) Start(spec Spec) (*Process, error) {
	defer spec.Dir.Close()
	r := &record{viewers: 1}
	if err := t.reserve(spec.ID, r); err != nil {
		return nil, err
	}
	started := make(chan struct{})
	p, err := start(spec, t.shims, t.group, func(p *Process) {
		<-started
		t.onEnd(r)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(started)
	defer t.settled.Broadcast()
	if err != nil {
		delete(t.records, spec.ID)
		return nil, err
	}
	r.process = p
	if t.closed {
		go p.Kill(CauseKilled, 0)
	}
	return p, nil
}

func (t *Table) reserve(id string, r *record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return fault.New(fault.ShuttingDown, "the guest is ending")
	case t.records[id] != nil:
		return fault.New(fault.ProcessExists, "process %q exists", id)
	case len(t.records)-len(t.finished) >= maxRunning:
		return fault.New(fault.ProcessLimit, "%d processes are running", maxRunning)
	}
	t.records[id] = r
	return nil
}

// Get finds a process.
func (t *Table) Get(id string) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.records[id]; r != nil && r.process != nil {
		return r.process, nil
	}
	return nil, fault.New(fault.ProcessNotFound, "no process %q", id)
}

// View finds a process and adds a viewer, which must Leave. It waits for one that is being started.
func (t *Table) View(id string) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[id]
	for r != nil && r.process == nil {
		t.settled.Wait()
		r = t.records[id]
	}
	if r == nil {
		return nil, fault.New(fault.ProcessNotFound, "no process %q", id)
	}
	r.viewers++
	if r.linger != nil {
		r.linger.Stop()
		r.linger = nil
	}
	return r.process, nil
}

// Leave takes a viewer away. With the last one, the process begins to linger; if it may not, it is killed, which
// Leave reports.
func (t *Table) Leave(p *Process) (killed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[p.ID]
	if r == nil || r.process != p {
		return false
	}
	r.viewers--
	if r.viewers > 0 || p.Linger < 0 {
		return false
	}
	if p.Linger == 0 {
		return t.abandon(r)
	}
	var timer *time.Timer
	timer = time.AfterFunc(p.Linger, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if r.linger == timer {
			t.abandon(r)
		}
	})
	r.linger = timer
	return false
}

// abandon forgets a process that has ended and kills any other.
func (t *Table) abandon(r *record) (killed bool) {
	r.unwanted = true
	select {
	case <-r.process.Finished():
		t.end(r)
		t.forget(r)
		return false
	default:
		go r.process.Kill(CauseKilled, r.process.Grace)
		return true
	}
}

func (t *Table) onEnd(r *record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(r)
	if r.unwanted && r.viewers == 0 {
		t.forget(r)
	}
}

// end enters a process among the finished ones, at the cost of the oldest that nobody views.
func (t *Table) end(r *record) {
	if r.finished {
		return
	}
	r.finished = true
	r.size = r.process.log.Size()
	t.kept += r.size
	t.finished = append(t.finished, r)
	for i := 0; i < len(t.finished) && (len(t.finished) > maxFinished || t.kept > maxKeptOutput); {
		if old := t.finished[i]; old.viewers == 0 {
			t.forget(old)
		} else {
			i++
		}
	}
}

func (t *Table) forget(r *record) {
	if t.records[r.process.ID] != r {
		return
	}
	delete(t.records, r.process.ID)
	if r.linger != nil {
		r.linger.Stop()
	}
	for i, other := range t.finished {
		if other == r {
			t.finished = append(t.finished[:i], t.finished[i+1:]...)
			t.kept -= r.size
			return
		}
	}
}

// All returns the processes that can be asked for.
func (t *Table) All() []*Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Process, 0, len(t.records))
	for _, r := range t.records {
		if r.process != nil {
			all = append(all, r.process)
		}
	}
	return all
}

// Close kills every process and returns when all have come to their end.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	all := t.All()
	for _, p := range all {
		p.Kill(CauseKilled, 0)
	}
	for _, p := range all {
		<-p.TreeEnd()
	}
}
