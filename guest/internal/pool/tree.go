package pool

import (
	"encoding/json"
	"os"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/proctree"
	"agentic-isolation/guest/internal/shim"
)

// Event is what a shim tells, and what the pool knows of that time.
type Event struct {
	shim.Event
	// Shared: at some time since the command's start there was another tree.
	Shared bool
}

// Observer learns what befalls a command. Its methods are called one at a time and must not block.
type Observer interface {
	Observe(Event)
	// Lost tells that the shim was killed. The tree has been killed too; survivors counts what could not be.
	Lost(survivors int)
}

// Tree is a running command and its descendants. Once the tree is empty its methods do nothing.
type Tree struct {
	shim.Started
	worker   *worker
	channel  uint32
	observer Observer
	over     chan struct{}
	// left is how many of its processes could not be killed, known once it is over.
	left int

	// These are guarded by worker.mu.
	watchdog *time.Timer
	killed   bool
}

// Spec is what to start, with its descriptors.
type Spec struct {
	Argv, Env []string
	User      *shim.User
	// Terminal: the standard input is a terminal, which the command is to control.
	Terminal bool
	// Stdio, descriptors, and Dir are duplicated, not taken.
	Stdio [3]int
	Dir   *os.File
}

func (p *Pool) start(spec *Spec, observer Observer) (*Tree, error) {
	sent, inherited := append(spec.Stdio[:], int(spec.Dir.Fd())), []int(nil)
	for {
		w, err := p.take(inherited)
		if err != nil {
			return nil, err
		}
		tree, answer, err := w.begin(spec, sent, observer)
		if err == errCrowded {
			p.release(w)
			sent, inherited = nil, sent
			continue
		}
		if err == errGone {
			// Nothing has reached this shim: it had died idle.
			p.forget(w)
			w.dismiss()
			continue
		}
		if err != nil {
			p.release(w)
			return nil, err
		}
		return tree, tree.confirm(answer)
	}
}

func (w *worker) begin(spec *Spec, fds []int, observer Observer) (*Tree, chan reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &Tree{worker: w, channel: w.last + 1, observer: observer, over: make(chan struct{})}
	answer, err := w.send(&shim.Request{
		Op: shim.OpStart, Argv: spec.Argv, Env: spec.Env, User: spec.User, Terminal: spec.Terminal,
	}, fds)
	if err != nil {
		return nil, nil, err
	}
	w.tree = t
	return t, answer, nil
}

// confirm waits for the shim's answer.
func (t *Tree) confirm(answer chan reply) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var r reply
	select {
	case r = <-answer:
	case <-timer.C:
		t.worker.destroy()
		r = <-answer
	}
	if r.err == nil {
		r.err = json.Unmarshal(r.payload, &t.Started)
	}
	if r.err == nil {
		return nil
	}
	t.worker.mu.Lock()
	mine := t.worker.tree == t
	if mine {
		t.worker.tree = nil
	}
	t.worker.mu.Unlock()
	if mine {
		t.worker.pool.release(t.worker)
	}
	return r.err
}

// ask sends a request about this tree, unless the tree is empty.
func (t *Tree) ask(req *shim.Request) (chan reply, error) {
	w := t.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tree != t {
		return nil, fault.New(fault.ProcessNotFound, "the process has ended")
	}
	return w.send(req, nil)
}

// Signal signals the command, or all of the tree, and returns when that has been done.
func (t *Tree) Signal(signal int, whole bool) error {
	answer, err := t.ask(&shim.Request{Op: shim.OpSignal, Signal: signal, Tree: whole})
	if err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-answer:
		return r.err
	case <-timer.C:
		t.worker.destroy()
		return fault.New(fault.ProcessNotFound, "the process's shim did not answer and was killed with it")
	}
}

// Kill begins to end the tree: SIGTERM, and SIGKILL after the grace. The observer learns the outcome.
func (t *Tree) Kill(grace time.Duration) {
	w := t.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tree != t {
		return
	}
	// Noted in the same breath: a shim that has a kill before it must run no other command, though this one ends by itself.
	t.killed = true
	t.calm()
	t.watchdog = time.AfterFunc(grace+exitWait, t.onSilence)
	_, _ = w.send(&shim.Request{Op: shim.OpKill, GraceMS: grace.Milliseconds()}, nil)
}

// onSilence ends a shim that has told neither that the tree is empty nor that it is stuck.
func (t *Tree) onSilence() {
	t.worker.mu.Lock()
	mine := t.worker.tree == t
	t.worker.mu.Unlock()
	if mine {
		t.worker.destroy()
	}
}

func (t *Tree) ended(left int) {
	t.worker.mu.Lock()
	defer t.worker.mu.Unlock()
	t.calm()
	t.left = left
	close(t.over)
}

// calm stops the watchdog; the caller holds worker.mu.
func (t *Tree) calm() {
	if t.watchdog != nil {
		t.watchdog.Stop()
	}
}

// Select returns the tree's processes among all.
func (t *Tree) Select(all []proctree.Proc) []proctree.Proc {
	select {
	case <-t.over:
		return nil
	default:
		return proctree.Below(all, t.worker.pid)
	}
}

// Survivors counts the tree's processes that still run.
func (t *Tree) Survivors() int {
	select {
	case <-t.over:
		return t.left
	default:
	}
	all, err := proctree.Snapshot()
	if err != nil {
		return uncounted(err)
	}
	return proctree.Living(t.Select(all))
}
