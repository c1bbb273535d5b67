// Package lease ends the guest when nobody wants it any more.
package lease

import (
	"sync"
	"time"
)

// Reason tells what has ended the guest's time.
type Reason string

// The reasons, by the names that the protocol gives them.
const (
	Lapsed   Reason = "lease"
	Idle     Reason = "idle"
	Lifetime Reason = "lifetime"
)

// Terms is how long the guest may live.
type Terms struct {
	// Lease is the time until the first renewal.
	Lease time.Duration
	// Idle is the longest time during which nothing is under way; 0: no limit.
	Idle time.Duration
	// Lifetime is the time in all, which nothing renews; 0: no limit.
	Lifetime time.Duration
}

const (
	// Time is charged in steps: so many or more to the shortest limit in force, and the longest where all are long. A
	// step is thus little of any limit, and long ones cost next to nothing.
	stepsPerLimit = 20
	longestStep   = 5 * time.Second
	shortestStep  = time.Millisecond
	// tardiness is how many steps may be charged at once: all of a tick that is late, little of a standstill.
	tardiness = 2
)

// limit is one of the terms, and what is left of it.
type limit struct {
	reason Reason
	total  time.Duration // 0: there is none
	left   time.Duration
	// suspended: it does not count at present.
	suspended bool
}

func (l *limit) counts() bool { return l.total > 0 && !l.suspended }

func (l *limit) refill(total time.Duration) { l.total, l.left = total, total }

// Lease holds the guest to its terms. They count time that the guest has lived: one that was frozen or suspended, or
// whose clock has jumped, could not be renewed meanwhile, and is charged a step or two for it.
type Lease struct {
	now   func() time.Time
	ended chan struct{}

	mu                    sync.Mutex
	lifetime, lease, idle limit
	// underWay counts what keeps the guest from being idle.
	underWay int
	// charged is until when time has been charged, and step what was planned then.
	charged time.Time
	step    time.Duration
	timer   *time.Timer
	reason  Reason
}

// New begins a lease. Until something begins, the guest is idle.
func New(terms Terms) *Lease { return begin(terms, time.Now) }

func begin(terms Terms, now func() time.Time) *Lease {
	l := &Lease{
		now: now, ended: make(chan struct{}), charged: now(),
		lifetime: limit{reason: Lifetime}, lease: limit{reason: Lapsed}, idle: limit{reason: Idle},
	}
	l.lifetime.refill(terms.Lifetime)
	l.lease.refill(terms.Lease)
	l.idle.refill(terms.Idle)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(longestStep, l.tick)
	l.plan()
	return l
}

// Renew lets the lease end ttl from now. It returns what is left, which the lifetime may cut short, and false when the
// guest's time is over.
func (l *Lease) Renew(ttl time.Duration) (left time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.charge(); l.reason != "" {
		return 0, false
	}
	l.lease.refill(ttl)
	l.plan()
	return l.left(), true
}

// Restart lets the guest live by other terms, counted from now. It returns what Renew does.
func (l *Lease) Restart(terms Terms) (left time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.charge(); l.reason != "" {
		return 0, false
	}
	l.lifetime.refill(terms.Lifetime)
	l.lease.refill(terms.Lease)
	l.idle.refill(terms.Idle)
	l.idle.suspended = l.idle.total > 0 && l.underWay > 0
	l.plan()
	return l.left(), true
}

// Left returns what is left of the lease, or of the lifetime where that is less.
func (l *Lease) Left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.charge()
	return l.left()
}

func (l *Lease) left() time.Duration {
	left := l.lease.left
	if l.lifetime.counts() {
		left = min(left, l.lifetime.left)
	}
	return max(left, 0)
}

// Begin tells that something is under way, until End is called as often.
func (l *Lease) Begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.underWay++; l.underWay == 1 && l.idle.counts() {
		l.charge()
		l.idle.suspended = true
	}
}

// End tells that something that has begun is over.
func (l *Lease) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.underWay--; l.underWay == 0 && l.idle.suspended {
		l.charge()
		l.idle.suspended = false
		l.idle.refill(l.idle.total)
		l.plan()
	}
}

// Ended is closed when one of the terms has run out.
func (l *Lease) Ended() <-chan struct{} { return l.ended }

// Reason returns which one it was; nothing until Ended.
func (l *Lease) Reason() Reason {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}

func (l *Lease) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.charge()
	l.plan()
}

// charge takes what has been lived since the last charge from every limit.
func (l *Lease) charge() {
	now := l.now()
	lived := min(max(now.Sub(l.charged), 0), tardiness*l.step)
	l.charged = now
	for _, limit := range []*limit{&l.lifetime, &l.lease, &l.idle} {
		if !limit.counts() {
			continue
		}
		if limit.left -= lived; limit.left <= 0 && l.reason == "" {
			l.reason = limit.reason
			close(l.ended)
		}
	}
}

// plan has the next charge made after a step, or when the first limit will be met. It follows a charge.
func (l *Lease) plan() {
	if l.reason != "" {
		return
	}
	l.step = longestStep
	next := longestStep
	for _, limit := range []*limit{&l.lifetime, &l.lease, &l.idle} {
		if limit.counts() {
			l.step = min(l.step, limit.total/stepsPerLimit)
			next = min(next, limit.left)
		}
	}
	l.step = max(l.step, shortestStep)
	l.timer.Reset(max(min(next, l.step), shortestStep))
}
