package files

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	eventsAtOnce = 32 << 10
	// longestEvent is the size of an event with the longest name.
	longestEvent = syscall.SizeofInotifyEvent + syscall.NAME_MAX + 1
	// farthestCounterpart is how many events may lie between the two of a move.
	farthestCounterpart = 64
	// counterpartDelay is how long the second one of a move may be behind the first, which the kernel tells just before.
	counterpartDelay = 20 * time.Millisecond
)

// event is one of inotify(7).
type event struct {
	watch  int32
	mask   uint32
	cookie uint32
	name   string
}

// read waits for events and reads what there are, and tells whether those were all.
func (w *Watch) read() (isDrained bool, err error) {
	n, err := w.inotify.Read(w.buffer[:])
	if err != nil {
		return false, err
	}
	w.batch++
	w.unread = appendEvents(w.unread, w.buffer[:n])
	return n < len(w.buffer)-longestEvent, nil
}

func appendEvents(events []event, raw []byte) []event {
	for len(raw) >= syscall.SizeofInotifyEvent {
		header := (*syscall.InotifyEvent)(unsafe.Pointer(&raw[0]))
		end := syscall.SizeofInotifyEvent + int(header.Len)
		if end > len(raw) {
			break
		}
		name, _, _ := bytes.Cut(raw[syscall.SizeofInotifyEvent:end], []byte{0})
		events = append(events, event{header.Wd, header.Mask, header.Cookie, string(name)})
		raw = raw[end:]
	}
	return events
}

// counterpart takes the second event of a move out of those to come. There is none when the entry was moved away.
func (w *Watch) counterpart(from event) (event, bool, error) {
	for isLate := false; ; isLate = true {
		for i, e := range w.unread[:min(len(w.unread), farthestCounterpart)] {
			if e.mask&syscall.IN_MOVED_TO != 0 && e.cookie == from.cookie {
				w.unread = append(w.unread[:i:i], w.unread[i+1:]...)
				return e, true, nil
			}
		}
		if isLate || len(w.unread) >= farthestCounterpart {
			return event{}, false, nil
		}
		if err := w.inotify.SetReadDeadline(time.Now().Add(counterpartDelay)); err != nil {
			return event{}, false, err
		}
		_, err := w.read()
		if err := w.inotify.SetReadDeadline(time.Time{}); err != nil {
			return event{}, false, err
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return event{}, false, nil
		}
		if err != nil {
			return event{}, false, err
		}
	}
}
