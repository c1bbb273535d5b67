package guesttest

import (
	"sync"
	"time"

	"agentic-isolation/guest/internal/frame"
)

// queue holds a channel's frames, which credit bounds.
type queue struct {
	mu     sync.Mutex
	frames []frame.Frame
	closed bool
	more   chan struct{}
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

func (q *queue) put(f frame.Frame) {
	q.mu.Lock()
	q.frames = append(q.frames, f)
	q.mu.Unlock()
	q.notify()
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.notify()
}

func (q *queue) notify() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take waits for a frame. It returns false at the end, and late when patience has run out.
func (q *queue) take() (f frame.Frame, ok, late bool) {
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	for {
		q.mu.Lock()
		if len(q.frames) > 0 {
			f = q.frames[0]
			q.frames = q.frames[1:]
			q.mu.Unlock()
			return f, true, false
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return f, false, false
		}
		select {
		case <-q.more:
		case <-timer.C:
			return f, false, true
		}
	}
}
