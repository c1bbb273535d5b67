// Package lease ends the guest when nobody wants it any more.
package lease

import (
	"sync"
	"time"
)

// Lease runs out unless it is renewed. It goes by the monotonic clock.
type Lease struct {
	mu      sync.Mutex
	timer   *time.Timer
	expired chan struct{}
}

// New begins a lease.
func New(ttl time.Duration) *Lease {
	l := &Lease{expired: make(chan struct{})}
	l.timer = time.AfterFunc(ttl, func() { close(l.expired) })
	return l
}

// Renew lets the lease end ttl from now. It reports false when it has ended before.
func (l *Lease) Renew(ttl time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.timer.Stop() {
		return false
	}
	l.timer.Reset(ttl)
	return true
}

// Expired is closed when the lease has run out.
func (l *Lease) Expired() <-chan struct{} { return l.expired }
