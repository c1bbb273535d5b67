package shim

import (
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/frame"
)

const (
	// killLimit is how long a SIGKILL may take to empty a tree before the guest is told.
	killLimit = 5 * time.Second
	// stopPasses bounds the hunt for processes that fork faster than they are stopped.
	stopPasses = 50
	firstRetry = 2 * time.Millisecond
	lastRetry  = time.Second
)

type killState struct {
	mu      sync.Mutex
	running bool
	at      time.Time
	sooner  chan struct{}
}

// killTree ends the tree: SIGTERM, and SIGKILL after the grace. Asked again, the earlier end counts.
func (c *command) killTree(grace time.Duration) {
	k := &c.kill
	k.mu.Lock()
	defer k.mu.Unlock()
	at := time.Now().Add(grace)
	if !k.running {
		k.running, k.at, k.sooner = true, at, make(chan struct{}, 1)
		go c.terminate(grace > 0)
		return
	}
	if at.Before(k.at) {
		k.at = at
		select {
		case k.sooner <- struct{}{}:
		default:
		}
	}
}

func (c *command) terminate(polite bool) {
	if polite {
		c.signalTree(syscall.SIGTERM)
	}
	for {
		c.kill.mu.Lock()
		left := time.Until(c.kill.at)
		c.kill.mu.Unlock()
		if left <= 0 {
			break
		}
		timer := time.NewTimer(left)
		select {
		case <-c.empty:
			timer.Stop()
			return
		case <-c.kill.sooner:
		case <-timer.C:
		}
		timer.Stop()
	}
	c.destroy()
}

// destroy stops the tree before it kills it, so that what forks meanwhile finds neither a free process slot nor a
// processor, and repeats until nothing is left.
func (c *command) destroy() {
	c.stopTree()
	limit := time.Now().Add(killLimit)
	told := false
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		c.signalTree(syscall.SIGKILL)
		pause := retry
		if !told {
			pause = min(pause, time.Until(limit))
		}
		timer := time.NewTimer(pause)
		select {
		case <-c.empty:
			timer.Stop()
			return
		case <-timer.C:
		}
		if !told && time.Until(limit) <= 0 {
			told = true
			c.control.send(frame.Event, c.channel, &Event{Event: EventStuck})
		}
	}
}

// signalGroup is for where descendants cannot be found.
func (c *command) signalGroup(signal syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leaderReaped {
		_ = syscall.Kill(c.leader, signal)
	}
	_ = syscall.Kill(-c.leader, signal)
}
