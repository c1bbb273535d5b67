package process

import (
	"sync"
	"time"

	"agentic-isolation/guest/internal/cgroup"
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/pool"
)

const maxRunning = 1024

// Activity is told of each process that begins, and that it has ended.
type Activity interface {
	Begin()
	End()
}

// Table is the processes of the guest.
type Table struct {
	shims    *pool.Pool
	group    *cgroup.Group
	activity Activity
	// window is how long what was asked for by a request is remembered after its end.
	window time.Duration

	mu sync.Mutex
	// settled is signalled when a process has started or failed to.
	settled *sync.Cond
	records map[string]*record
	// running counts those of them that have not ended.
	running  int
	finished finished
	stones   *tombstones
	closed   bool
}

// NewTable returns an empty table that starts processes by shims, in a control group that counts what they meet and
// says how much memory there is.
func NewTable(shims *pool.Pool, group *cgroup.Group, activity Activity, window time.Duration) *Table {
	t := &Table{
		shims: shims, group: group, activity: activity, window: window,
		records: map[string]*record{}, finished: newFinished(group.Limits().Memory), stones: newTombstones(window),
	}
	t.settled = sync.NewCond(&t.mu)
	return t
}

// Start starts a process with one viewer, which must leave. Complete fills in what spec lacks: it is asked once it is
// settled that the process is a new one, as what it looks at may have changed since the first time. A process that fails
// to start leaves no trace.
func (t *Table) Start(spec *Spec, complete func(*Spec) error) (*Process, error) {
	r := &record{id: spec.ID, request: spec.Request, viewers: 1}
	if err := t.reserve(r); err != nil {
		return nil, err
	}
	started := make(chan struct{})
	p, err := t.launch(spec, complete, func() {
		<-started
		t.onEnd(r)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(started)
	defer t.settled.Broadcast()
	if err != nil {
		delete(t.records, r.id)
		t.running--
		t.activity.End()
		return nil, err
	}
	r.process = p
	if t.closed {
		go p.Kill(CauseKilled, 0)
	}
	return p, nil
}

func (t *Table) launch(spec *Spec, complete func(*Spec) error, onEnd func()) (*Process, error) {
	if err := complete(spec); err != nil {
		return nil, err
	}
	defer spec.Dir.Close()
	return start(*spec, t.shims, t.group, onEnd)
}

func (t *Table) reserve(r *record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.records[r.id]
	switch {
	case t.closed:
		return fault.New(fault.ShuttingDown, "the guest is ending")
	case known != nil:
		return known.refuse(r.request)
	case t.stones.has(r.id):
		return fault.New(fault.ResultForgotten, "process %q was run or forbidden before, and is not remembered any more", r.id)
	case t.running >= maxRunning:
		return fault.New(fault.ProcessLimit, "%d processes are running", maxRunning)
	}
	t.records[r.id] = r
	t.running++
	t.activity.Begin()
	return nil
}

// Get finds a process.
func (t *Table) Get(id string) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.records[id]; r != nil && r.process != nil {
		return r.process, nil
	}
	return nil, unknown(id)
}

// Find finds a process, and waits for one that is being started.
func (t *Table) Find(id string) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.await(id); r != nil {
		return r.process, nil
	}
	return nil, unknown(id)
}

func unknown(id string) error { return fault.New(fault.ProcessNotFound, "no process %q", id) }

// Forbid finds a process, and waits for one that is being started. Where there is none it returns nil, and the id is
// refused from then on, for as long as the table remembers that.
func (t *Table) Forbid(id string) *Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.await(id); r != nil {
		return r.process
	}
	t.stones.add(id)
	return nil
}

// await finds a record that is not just being started.
func (t *Table) await(id string) *record {
	r := t.records[id]
	for r != nil && r.process == nil {
		t.settled.Wait()
		r = t.records[id]
	}
	return r
}

// View finds a process and adds a viewer, which must leave. It waits for one that is being started.
func (t *Table) View(id string) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.await(id)
	if r == nil {
		return nil, unknown(id)
	}
	r.viewers++
	if r.request == "" || !r.process.HasFinished() {
		r.stopTimer() // the window of a result does not wait
	}
	return r.process, nil
}

// Leave takes a viewer away. With the last one, the process begins to linger; if it may not, it is killed, which
// Leave reports.
func (t *Table) Leave(p *Process) (killed bool) { return t.leave(p, false) }

// Conclude takes a viewer away that is told the result.
func (t *Table) Conclude(p *Process) { t.leave(p, true) }

func (t *Table) leave(p *Process, delivered bool) (killed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[p.ID]
	if r == nil || r.process != p {
		return false
	}
	r.viewers--
	r.delivered = r.delivered || delivered
	if r.viewers > 0 {
		return false
	}
	switch {
	case r.overdue:
		t.forget(r)
	case r.request != "" && r.process.HasFinished(), p.Linger < 0:
	case p.Linger == 0:
		killed = t.abandon(r)
	default:
		t.schedule(r, p.Linger, func(r *record) { t.abandon(r) })
	}
	t.trim()
	return killed
}

// abandon kills a process that nobody may come back to, or forgets it where it has ended and has no window.
func (t *Table) abandon(r *record) (killed bool) {
	switch {
	case !r.process.HasFinished():
		r.unwanted = true
		go r.process.Kill(CauseKilled, r.process.Grace)
		return true
	case r.request == "":
		t.forget(r)
	}
	return false
}

func (t *Table) onEnd(r *record) {
	t.activity.End()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if t.records[r.id] != r {
		return
	}
	t.finished.add(r)
	switch {
	case r.request != "":
		t.schedule(r, t.window, t.expire)
	case r.unwanted && r.viewers == 0:
		t.forget(r)
	}
	t.trim()
}

// expire ends the window of a result.
func (t *Table) expire(r *record) {
	if r.viewers > 0 {
		r.overdue = true
		return
	}
	t.forget(r)
}

// trim forgets what there is no room for.
func (t *Table) trim() {
	for r := t.finished.surplus(); r != nil; r = t.finished.surplus() {
		if r.forgotten {
			t.dispossess(r)
		} else {
			t.forget(r)
		}
	}
}

// forget drops a record. Of what may be asked for again, the id stays.
func (t *Table) forget(r *record) {
	delete(t.records, r.id)
	r.stopTimer()
	t.retain(r)
	if r.request != "" {
		t.stones.add(r.id)
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
