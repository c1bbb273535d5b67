package link

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// softLimit makes whoever can wait do so while as much is queued; hardLimit ends the link.
	softLimit = 256 << 10
	hardLimit = 4 << 20
	// keepBuffer is the largest buffer worth keeping while a link is idle.
	keepBuffer = 1 << 20
	// smallBatch, in bytes, is written by whoever queues it: to wake the writer would take longer.
	smallBatch = 4 << 10
)

var errEnded = errors.New("the link has ended")

// writer coalesces frames: while one batch is being written, the next gathers.
type writer struct {
	conn  net.Conn
	mu    sync.Mutex
	room  *sync.Cond // there is room, or the link has ended
	work  *sync.Cond // there is something to write, or the link has ended
	queue []byte
	spare []byte
	busy  bool
	ended bool
	// err is why writing has failed.
	err error
}

func newWriter(conn net.Conn) *writer {
	w := &writer{conn: conn}
	w.room, w.work = sync.NewCond(&w.mu), sync.NewCond(&w.mu)
	return w
}

// append queues what fill appends, or writes it, and waits for room before. What is held is written with what follows.
func (w *writer) append(fill func(queue []byte) (out []byte, hold bool)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) >= softLimit && !w.ended {
		w.room.Wait()
	}
	if w.ended {
		return errEnded
	}
	queue, hold := fill(w.queue)
	w.queue = queue
	if n := len(queue); n > 0 && n <= smallBatch {
		if hold {
			return nil
		}
		if !w.busy {
			w.write()
		}
	}
	if len(w.queue) > 0 || w.err != nil {
		w.work.Signal()
	}
	return nil
}

// appendNow queues without waiting. A peer that does not read while it makes us answer loses its link.
func (w *writer) appendNow(fill func(queue []byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) >= hardLimit {
		return errors.New("the peer does not read")
	}
	if w.ended {
		return errEnded
	}
	w.queue = fill(w.queue)
	w.work.Signal()
	return nil
}

// run writes what nobody else does, until the link ends or writing fails.
func (w *writer) run() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for (len(w.queue) == 0 || w.busy) && w.err == nil && !w.ended {
			w.work.Wait()
		}
		if w.ended || w.err != nil {
			return w.err
		}
		w.write()
	}
}

// write writes all that is queued. The caller holds mu, which is let go meanwhile.
func (w *writer) write() {
	batch := w.queue
	w.queue = w.spare[:0]
	w.spare = nil
	w.busy = true
	w.room.Broadcast()
	w.mu.Unlock()
	_, err := w.conn.Write(batch)
	w.mu.Lock()
	w.busy = false
	w.room.Broadcast()
	if w.err == nil {
		w.err = err
	}
	if cap(batch) <= keepBuffer {
		w.spare = batch[:0]
	}
}

// end wakes everybody.
func (w *writer) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.room.Broadcast()
	w.work.Broadcast()
}

// flush returns when all that is queued has been written, or has no chance to be.
func (w *writer) flush(limit time.Duration) {
	late := false
	timer := time.AfterFunc(limit, func() {
		w.mu.Lock()
		late = true
		w.mu.Unlock()
		w.room.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for (len(w.queue) > 0 || w.busy) && !w.ended && !late {
		w.room.Wait()
	}
}
