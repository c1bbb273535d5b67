package process

import "slices"

const (
	maxFinished = 1024
	// maxKept and minKept bound, in bytes, what finished processes may take; between them it is a share of the memory.
	maxKept     = 64 << 20
	minKept     = 1 << 20
	memoryShare = 16
)

// finished is the records of processes that have ended, in the order of their end.
type finished struct {
	records []*record
	// kept is what they take, and most what they may, in bytes.
	kept, most int
}

// newFinished bounds what is kept where memory is, if that is known.
func newFinished(memory *int64) finished {
	if memory == nil {
		return finished{most: maxKept}
	}
	return finished{most: int(min(max(*memory/memoryShare, minKept), maxKept))}
}

// add does nothing about a record that has been added.
func (f *finished) add(r *record) {
	if r.size > 0 {
		return
	}
	r.size = r.process.size()
	f.kept += r.size
	f.records = append(f.records, r)
}

// remove does nothing about a record that has not been added.
func (f *finished) remove(r *record) {
	if r.size == 0 {
		return
	}
	if i := slices.Index(f.records, r); i >= 0 {
		f.records = slices.Delete(f.records, i, i+1)
		f.kept -= r.size
		r.size = 0
	}
}

// surplus returns what has to go first, or nil where nothing has to or can: what is kept for observers only, else the oldest
// whose result somebody has been told, else the oldest at all. What somebody views stays.
func (f *finished) surplus() *record {
	if len(f.records) <= maxFinished && f.kept <= f.most {
		return nil
	}
	var delivered, oldest *record
	for _, r := range f.records {
		switch {
		case r.forgotten:
			return r
		case r.viewers > 0:
			continue
		case r.delivered && delivered == nil:
			delivered = r
		case oldest == nil:
			oldest = r
		}
	}
	if delivered != nil {
		return delivered
	}
	return oldest
}
