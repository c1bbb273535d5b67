package process

import "sync"

// Observe finds a process to look on at: that neither keeps it nor holds it up. It waits for one that is being started.
// The caller calls done when it looks no more; a second call does nothing.
func (t *Table) Observe(id string) (p *Process, done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.await(id)
	if r == nil {
		return nil, nil, unknown(id)
	}
	r.observers++
	return r.process, sync.OnceFunc(func() { t.unobserve(r) }), nil
}

func (t *Table) unobserve(r *record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.observers--
	if r.forgotten && r.observers == 0 {
		t.finished.remove(r)
	}
}

// retain keeps a record that is being forgotten for its observers, if there are any. What it takes counts on.
func (t *Table) retain(r *record) {
	if r.observers == 0 {
		t.finished.remove(r)
		return
	}
	r.forgotten = true
	t.finished.add(r)
}

// dispossess takes from its observers what they have not read of a forgotten process. The result stays.
func (t *Table) dispossess(r *record) {
	t.finished.remove(r)
	r.process.log.Discard()
}
