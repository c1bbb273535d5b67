package process

import (
	"sync"
	"time"

	"agentic-isolation/guest/internal/frame"
)

const (
	// logCapacity bounds what a log holds, and keptBack what it keeps of that for a reader that resumes.
	logCapacity = 1 << 20
	keptBack    = 768 << 10
	firstRing   = 4 << 10
	// batch is what one call of AppendFrames appends, and less than a frame more.
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

// Log is the latest output of a process. Offsets count the bytes of both sources since its start. It consists of entries:
// runs of bytes of one source, which frames hold as a whole. They take two bits a byte, however short they are.
type Log struct {
	overflow Overflow

	mu   sync.Mutex
	room *sync.Cond
	// ring holds the bytes from start to end, the one with offset o at o modulo its length.
	ring       []byte
	start, end uint64
	// begins tells where in the ring entries begin, and isStderr of which source bytes are.
	begins, isStderr bitset
	// latest is the offset of the latest entry.
	latest uint64
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
	for !l.makeRoom(len(b)) && l.release != releaseAll && (straggler || l.release != releaseCommand) {
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
	return l.start < l.end && l.sourceAt(l.latest) == source && l.end-l.latest+uint64(n) <= frame.MaxData
}

// makeRoom trims the log and reports whether n bytes fit now.
func (l *Log) makeRoom(n int) bool {
	for int(l.end-l.start)+n > logCapacity {
		if l.overflow == Hold && !l.spare() || l.start == l.end {
			return false
		}
		l.dropOldest()
	}
	return true
}

// spare reports whether the oldest entry has been sent and is not among what is kept back.
func (l *Log) spare() bool { return l.start < l.end && l.entryEnd(l.start)+keptBack <= l.sent }

// place is where in the ring the byte of an offset lies.
func (l *Log) place(offset uint64) int { return int(offset % uint64(len(l.ring))) }

func (l *Log) sourceAt(offset uint64) Source {
	if l.isStderr.has(l.place(offset)) {
		return Stderr
	}
	return Stdout
}

// entryEnd returns where the entry ends that the byte of an offset is in.
func (l *Log) entryEnd(offset uint64) uint64 {
	for offset++; offset < l.end; {
		piece := l.piece(offset, l.end)
		at := l.place(offset)
		found := l.begins.next(at, at+len(piece))
		offset += uint64(found - at)
		if found < at+len(piece) {
			return offset
		}
	}
	return l.end
}

func (l *Log) dropOldest() {
	source, end := l.sourceAt(l.start), l.entryEnd(l.start)
	if unsent := max(l.start, l.sent); end > unsent {
		l.lost[source] += end - unsent
	}
	l.start = end
}

func (l *Log) put(source Source, b []byte) {
	l.grow(int(l.end-l.start) + len(b))
	begins := !l.extends(source, len(b))
	if begins {
		l.latest = l.end
	}
	l.write(source, b, begins)
}

// write puts bytes for which there is room into the ring.
func (l *Log) write(source Source, b []byte, begins bool) {
	at := l.place(l.end)
	n := copy(l.ring[at:], b)
	l.mark(at, at+n, source)
	l.mark(0, copy(l.ring, b[n:]), source)
	if begins {
		l.begins.set(at)
	}
	l.end += uint64(len(b))
}

// mark takes note of bytes of a source that begin nothing.
func (l *Log) mark(from, to int, source Source) {
	l.begins.fill(from, to, false)
	l.isStderr.fill(from, to, source == Stderr)
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
	fresh := &Log{start: l.start, end: l.start, ring: make([]byte, size), begins: newBitset(size), isStderr: newBitset(size)}
	for at := l.start; at < l.end; {
		source, end := l.sourceAt(at), l.entryEnd(at)
		for begins := true; at < end; begins = false {
			piece := l.piece(at, end)
			fresh.write(source, piece, begins)
			at += uint64(len(piece))
		}
	}
	l.ring, l.begins, l.isStderr = fresh.ring, fresh.begins, fresh.isStderr
}

// piece returns the contiguous bytes from offset on, up to end at most.
func (l *Log) piece(offset, end uint64) []byte {
	at := l.place(offset)
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
	most := len(dst) + batch
	for l.start <= at && at < l.end && used < credit && len(dst) < most {
		source, end := l.sourceAt(at), l.entryEnd(at)
		n := int(end - at)
		dst = frame.AppendHeader(dst, source.frameType(), channel, n)
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
	l.start, l.ring, l.begins, l.isStderr = l.end, nil, nil, nil
	l.wake()
}

// Size is the memory that the log takes, in bytes.
func (l *Log) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ring) + wordBits/8*(len(l.begins)+len(l.isStderr))
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
