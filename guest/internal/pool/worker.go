package pool

import (
	"encoding/json"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/shim"
)

// worker is the guest's side of one shim.
type worker struct {
	pool *Pool
	pid  int
	conn *net.UnixConn
	// ready is closed when the shim can run commands, down when it has hung up, and reaped once the kernel has given its
	// children to the guest.
	ready, down, reaped chan struct{}
	// These are guarded by pool.mu. Shared: another worker has been bound at the same time.
	idleSince time.Time
	shared    bool

	mu sync.Mutex
	// last is the channel of the latest request; tree is what the shim runs now.
	last    uint32
	replies map[uint32]chan reply
	tree    *Tree
	gone    bool
}

type reply struct {
	payload []byte
	err     error
}

func newWorker(p *Pool, pid int, conn *net.UnixConn) *worker {
	return &worker{
		pool: p, pid: pid, conn: conn, replies: map[uint32]chan reply{},
		ready: make(chan struct{}), down: make(chan struct{}), reaped: make(chan struct{}),
	}
}

func (w *worker) lost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

// dismiss hangs up, upon which the shim kills what it runs and ends.
func (w *worker) dismiss() { w.conn.Close() }

var errGone error = fault.New(fault.StartFailed, "the shim of the command has ended")

// errCrowded: the kernel counts the descriptors that lie in sockets for a user, whichever workspace its processes are
// in, and takes no more of them for now. Nothing has been sent.
var errCrowded error = fault.New(fault.StartFailed, "too many descriptors lie in sockets")

// send makes a request. The caller holds mu, so that no request can reach a shim's next command by mistake.
func (w *worker) send(req *shim.Request, fds []int) (chan reply, error) {
	if w.gone {
		return nil, errGone
	}
	w.last++
	out, err := frame.AppendJSON(nil, frame.Open, w.last, req)
	if err != nil {
		return nil, fault.New(fault.BadRequest, "argv and env are too long: %v", err)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	answer := make(chan reply, 1)
	w.replies[w.last] = answer
	_ = w.conn.SetWriteDeadline(time.Now().Add(patience))
	n, _, err := w.conn.WriteMsgUnix(out, oob, nil)
	if err == nil && n < len(out) {
		_, err = w.conn.Write(out[n:])
	}
	if err != nil {
		delete(w.replies, w.last)
		if errors.Is(err, syscall.ETOOMANYREFS) {
			return nil, errCrowded
		}
		return nil, errGone
	}
	return answer, nil
}

// listen passes on what the shim tells, until it has gone.
func (w *worker) listen() {
	decoder := frame.NewDecoder(w.conn)
	for {
		f, err := decoder.Next()
		if err != nil {
			break
		}
		switch f.Type {
		case frame.Hello:
			close(w.ready)
		case frame.Result, frame.Error:
			w.answer(f)
		case frame.Event:
			w.event(f)
		}
	}
	w.vanish()
}

func (w *worker) answer(f frame.Frame) {
	r := reply{payload: append([]byte(nil), f.Payload...)}
	if f.Type == frame.Error {
		e := &fault.Error{}
		if r.err = e; json.Unmarshal(f.Payload, e) != nil {
			r.err = errGone
		}
	}
	w.mu.Lock()
	answer := w.replies[f.Channel]
	delete(w.replies, f.Channel)
	w.mu.Unlock()
	if answer != nil {
		answer <- r
	}
}

func (w *worker) event(f frame.Frame) {
	var e shim.Event
	if json.Unmarshal(f.Payload, &e) != nil {
		return
	}
	w.mu.Lock()
	t := w.tree
	if t == nil || t.channel != f.Channel {
		w.mu.Unlock()
		return
	}
	if e.Empty {
		w.tree = nil
	}
	if e.Event == shim.EventStuck {
		t.calm()
	}
	killed := t.killed
	w.mu.Unlock()
	told := Event{e, w.pool.isShared(w)}
	if e.Empty {
		t.ended(0)
		w.retire(killed)
	}
	t.observer.Observe(told)
}

// retire gives the shim back. One that has killed has got more threads and memory by it than a fresh one needs.
func (w *worker) retire(killed bool) {
	if killed {
		w.pool.forget(w)
		w.dismiss()
	} else {
		w.pool.release(w)
	}
	demand(w.pool.freed)
}

// vanish ends the command of a shim that has gone, after the orphans that it left to the guest have been killed.
func (w *worker) vanish() {
	w.mu.Lock()
	w.gone = true
	t := w.tree
	w.tree = nil
	replies := w.replies
	w.replies = nil
	w.mu.Unlock()
	w.conn.Close()
	close(w.down)
	w.pool.forget(w)
	if t != nil {
		w.awaitReaped()
		survivors := w.pool.sweep(cleanLooks)
		t.ended(survivors)
		t.observer.Lost(survivors)
		demand(w.pool.freed)
	}
	for _, answer := range replies {
		answer <- reply{err: errGone}
	}
	select {
	case <-w.ready:
		demand(w.pool.low)
	default: // it has died at its start, as the next one would
	}
}

// awaitReaped also ends a shim that has hung up without ending: it has a command of a guest that is ending to kill. One
// that is dead and cannot be reaped, as somebody traces it, has lost its children all the same.
func (w *worker) awaitReaped() {
	timer := time.AfterFunc(exitWait, w.destroy)
	defer timer.Stop()
	select {
	case <-w.reaped:
	case <-w.pool.quit:
	case <-time.After(exitWait + reapWait):
	}
}

// destroy kills the shim itself; its tree falls to the guest.
func (w *worker) destroy() { w.signal(syscall.SIGKILL) }

func (w *worker) signal(signal syscall.Signal) {
	w.pool.forks.Lock()
	defer w.pool.forks.Unlock()
	if w.pool.shims[w.pid] == w {
		_ = syscall.Kill(w.pid, signal)
	}
}
