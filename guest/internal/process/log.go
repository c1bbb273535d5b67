package process

import (
	"sort"
	"sync"
	"time"

	"agentic-isolation/guest/internal/frame"
)

const (
	// logCapacity bounds what a log holds, and keptBack what it keeps of that for a reader that resumes.
	logCapacity = 1 << 20
	keptBack    = 768 << 10
	// entryCost is charged for each entry, so that output that alternates between the sources byte by byte is
	// bounded as well.
	entryCost = 64
	firstRing = 4 << 10
	// batch bounds how much one call of AppendFrames appends.
	batch = 128 << 10
)

// Source is one of a process's two outputs.
type Source uint8

// The two sources.
const (
	Stdout Source = iota
	Stderr
	sources
)

// Overflow is what a full log does.
type Overflow uint8

// Hold holds the writer back for the fastest reader; Drop loses the oldest bytes instead.
const (
	Hold Overflow = iota
	Drop
)

// entry is a run of bytes of one source. It ends where the next one begins.
type entry struct {
	offset uint64
	source Source
}

// Log is the latest output of a process. Offsets count the bytes of both sources since its start.
type Log struct {
	overflow Overflow

	mu   sync.Mutex
	room *sync.Cond
	// ring holds the bytes from start to end, the one with offset o at o modulo its length.
	ring       []byte
	start, end uint64
	entries    []entry
	// sent is how far the fastest reader ever has come.
	sent     uint64
	lost     [sources]uint64
	release  release
	watchers map[chan<- struct{}]struct{}
}

// release tells which writers a full log lets pass nevertheless.
type release uint8

const (
	releaseNobody release = iota
	// releaseCommand: the command has ended; what it left in its pipes, which is bounded, must fit.
	releaseCommand
	// releaseAll: so has every other process of the tree.
	releaseAll
)

// NewLog returns an empty log, which takes no memory to speak of until it is written to.
func NewLog(overflow Overflow) *Log {
	l := &Log{overflow: overflow, watchers: map[chan<- struct{}]struct{}{}}
	l.room = sync.NewCond(&l.mu)
	return l
}

// Append appends b, of at most frame.MaxData bytes, as a whole. It blocks while the log is full and holds, and
// returns how long it did. A straggler is a writer that outlives the command.
func (l *Log) Append(source Source, b []byte, straggler bool) (blocked time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var since time.Time
	for !l.makeRoom(source, len(b)) && l.release != releaseAll && (straggler || l.release != releaseCommand) {
		if since.IsZero() {
			since = time.Now()
		}
		l.room.Wait()
	}
	if !since.IsZero() {
		blocked = time.Since(since)
	}
	l.put(source, b)
	l.wake()
	return blocked
}

// extends reports whether n more bytes of source belong into the latest entry.
func (l *Log) extends(source Source, n int) bool {
	if len(l.entries) == 0 {
		return false
	}
	last := l.entries[len(l.entries)-1]
	return last.source == source && l.end-last.offset+uint64(n) <= frame.MaxData
}

// makeRoom trims the log and reports whether n bytes of source fit now.
func (l *Log) makeRoom(source Source, n int) bool {
	need := n
	if !l.extends(source, n) {
		need += entryCost
	}
	for l.cost()+need > logCapacity {
		if l.overflow == Hold && !l.spare() || len(l.entries) == 0 {
			return false
		}
		l.dropOldest()
	}
	return true
}

func (l *Log) cost() int { return int(l.end-l.start) + entryCost*len(l.entries) }

// spare reports whether the oldest entry has been sent and is not among those kept back. Both are measured by their
// cost: else tiny entries would fill the log without ever being spare.
func (l *Log) spare() bool {
	if len(l.entries) == 0 || l.entryEnd(0) > l.sent {
		return false
	}
	wholly := sort.Search(len(l.entries), func(i int) bool { return l.entryEnd(i) > l.sent })
	return int(l.sent-l.entryEnd(0))+entryCost*(wholly-1) >= keptBack
}

func (l *Log) entryEnd(i int) uint64 {
	if i+1 < len(l.entries) {
		return l.entries[i+1].offset
	}
	return l.end
}

func (l *Log) dropOldest() {
	oldest, end := l.entries[0], l.entryEnd(0)
	if unsent := max(l.start, l.sent); end > unsent {
		l.lost[oldest.source] += end - unsent
	}
	l.start = end
	l.entries = l.entries[1:]
}

func (l *Log) put(source Source, b []byte) {
	l.grow(int(l.end-l.start) + len(b))
	if !l.extends(source, len(b)) {
		l.entries = append(l.entries, entry{offset: l.end, source: source})
	}
	at := int(l.end % uint64(len(l.ring)))
	n := copy(l.ring[at:], b)
	copy(l.ring, b[n:])
	l.end += uint64(len(b))
}

func (l *Log) grow(n int) {
	if n <= len(l.ring) {
		return
	}
	size := max(len(l.ring), firstRing)
	for size < n {
		size *= 2
	}
	l.resize(size)
}

func (l *Log) resize(size int) {
	ring := make([]byte, size)
	for o := l.start; o < l.end; {
		from := l.piece(o, l.end)
		for len(from) > 0 {
			n := copy(ring[o%uint64(size):], from)
			from = from[n:]
			o += uint64(n)
		}
	}
	l.ring = ring
}

// piece returns the contiguous bytes from offset on, up to end at most.
func (l *Log) piece(offset, end uint64) []byte {
	at := int(offset % uint64(len(l.ring)))
	return l.ring[at:min(len(l.ring), at+int(end-offset))]
}

// AppendFrames appends the frames that a reader at offset at is due: a GAP if the log no longer reaches back, and
// the remainders of whole entries while credit is positive. It returns the reader's next offset, the credit used,
// and whether that offset is the log's end.
func (l *Log) AppendFrames(dst []byte, channel uint32, at uint64, credit int64) (out []byte, next uint64, used int64, atEnd bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out, next, used, atEnd = l.frames(dst, channel, at, credit)
	if next > l.sent {
		l.sent = next
		l.room.Broadcast()
	}
	return out, next, used, atEnd
}

// ObserveFrames is AppendFrames for a reader that only looks on: the log moves on without regard to it.
func (l *Log) ObserveFrames(dst []byte, channel uint32, at uint64, credit int64) (out []byte, next uint64, used int64, atEnd bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.frames(dst, channel, at, credit)
}

func (l *Log) frames(dst []byte, channel uint32, at uint64, credit int64) (out []byte, next uint64, used int64, atEnd bool) {
	// One without credit is told once it has some, of all that it has missed by then.
	if at < l.start && (credit > 0 || l.start == l.end) {
		dst = frame.AppendGap(dst, channel, l.start-at)
		at = l.start
	}
	i := sort.Search(len(l.entries), func(i int) bool { return l.entryEnd(i) > at })
	for ; i < len(l.entries) && used < credit && used < batch; i++ {
		end := l.entryEnd(i)
		n := int(end - at)
		dst = frame.AppendHeader(dst, l.entries[i].source.frameType(), channel, n)
		head := l.piece(at, end)
		dst = append(append(dst, head...), l.ring[:n-len(head)]...)
		at = end
		used += int64(n)
	}
	return dst, at, used, at == l.end
}

func (s Source) frameType() frame.Type {
	if s == Stderr {
		return frame.Stderr
	}
	return frame.Stdout
}

// Bounds returns the offsets between which the log holds the output.
func (l *Log) Bounds() (start, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start, l.end
}

// Lost returns how many bytes of source were dropped before any reader was sent them.
func (l *Log) Lost(source Source) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[source]
}

// Release lets writers of a full log pass.
func (l *Log) Release(r release) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release = max(l.release, r)
	l.room.Broadcast()
}

// Seal gives back the memory that a finished log does not need, and wakes its readers for the end.
func (l *Log) Seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(l.end - l.start); n < len(l.ring)/2 {
		l.resize(max(n, 1))
	}
	l.wake()
}

// Discard drops all that a sealed log holds. Who still reads it is told by a GAP.
func (l *Log) Discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start, l.entries, l.ring = l.end, nil, nil
	l.wake()
}

// Size is the memory that the log takes, in bytes.
func (l *Log) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ring) + entryCost*len(l.entries)
}

// Watch has a value put into wake, unless it is full, whenever something is appended.
func (l *Log) Watch(wake chan<- struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers[wake] = struct{}{}
}

// Unwatch ends Watch.
func (l *Log) Unwatch(wake chan<- struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, wake)
}

func (l *Log) wake() {
	for wake := range l.watchers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}
