package process

import (
	"hash/maphash"
	"time"
)

// maxTombstones bounds how many ids are kept. Each costs some fifty bytes.
const maxTombstones = 65_536

// tombstones are the ids of what must not be run again although nothing else is known of it any more. An id is kept as a
// hash: that another one has the same is less likely than that the machine errs.
type tombstones struct {
	window time.Duration
	seed   maphash.Seed
	epoch  time.Time
	// order holds them by their end; until has for each the latest one, as an id may be added again.
	order []tombstone
	until map[uint64]time.Duration
}

// tombstone is an id's hash, and until when after the epoch it is kept, by the monotonic clock.
type tombstone struct {
	hash  uint64
	until time.Duration
}

func newTombstones(window time.Duration) *tombstones {
	return &tombstones{window: window, seed: maphash.MakeSeed(), epoch: time.Now()}
}

// add keeps an id for the window from now on.
func (t *tombstones) add(id string) {
	now := time.Since(t.epoch)
	t.purge(now, maxTombstones-1)
	if t.until == nil {
		t.until = map[uint64]time.Duration{}
	}
	stone := tombstone{maphash.String(t.seed, id), now + t.window}
	t.order = append(t.order, stone)
	t.until[stone.hash] = stone.until
}

func (t *tombstones) has(id string) bool {
	t.purge(time.Since(t.epoch), maxTombstones)
	_, kept := t.until[maphash.String(t.seed, id)]
	return kept
}

// purge removes those whose time is over, and the oldest of more than most.
func (t *tombstones) purge(now time.Duration, most int) {
	gone := 0
	for _, stone := range t.order {
		if stone.until > now && len(t.order)-gone <= most {
			break
		}
		if t.until[stone.hash] == stone.until {
			delete(t.until, stone.hash)
		}
		gone++
	}
	if t.order = t.order[gone:]; len(t.order) == 0 {
		// A map never shrinks.
		t.order, t.until = nil, nil
	}
}
