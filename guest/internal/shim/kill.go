package shim

import (
	"os"
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
	firstRetry = time.Millisecond
	lastRetry  = 250 * time.Millisecond
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
		if !c.signalTree(syscall.SIGKILL) {
			// Without descriptors, which a workload of the same user may have taken from it. The guest looks instead: what
			// has lost its shim is its own.
			os.Exit(1)
		}
		pause(retry)
		select {
		case <-c.empty:
			return
		default:
		}
		if !told && time.Until(limit) <= 0 {
			told = true
			c.control.send(frame.Event, c.channel, &Event{Event: EventStuck})
		}
	}
}

// pause sleeps in the kernel: the runtime's timers need its poller, which costs a thread.
func pause(d time.Duration) {
	ts := syscall.NsecToTimespec(d.Nanoseconds())
	_ = nanosleep(&ts)
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
