package process

import (
	"sync"

	"agentic-isolation/guest/internal/frame"
)

// capture keeps head and tail of each source and counts the rest.
type capture struct {
	mu   sync.Mutex
	kept [sources]kept
}

type kept struct {
	headLimit, tailLimit int
	head                 []byte
	// tail is a ring once it has reached its limit; oldest is where it begins.
	tail   []byte
	oldest int
	total  uint64
}

func newCapture(limit int) *capture {
	c := &capture{}
	for i := range c.kept {
		c.kept[i].headLimit = limit / 2
		c.kept[i].tailLimit = limit - limit/2
	}
	return c
}

func (c *capture) write(source Source, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[source].write(b)
}

func (k *kept) write(b []byte) {
	k.total += uint64(len(b))
	if n := min(k.headLimit-len(k.head), len(b)); n > 0 {
		k.head = append(k.head, b[:n]...)
		b = b[n:]
	}
	if n := min(k.tailLimit-len(k.tail), len(b)); n > 0 {
		k.tail = append(k.tail, b[:n]...)
		b = b[n:]
	}
	if k.tailLimit == 0 || len(b) == 0 {
		return
	}
	if excess := len(b) - k.tailLimit; excess > 0 {
		b = b[excess:]
	}
	n := copy(k.tail[k.oldest:], b)
	copy(k.tail, b[n:])
	k.oldest = (k.oldest + len(b)) % k.tailLimit
}

func (k *kept) omitted() uint64 { return k.total - uint64(len(k.head)+len(k.tail)) }

// pour moves what was kept into the log from which readers get it, all of stdout before all of stderr.
func (c *capture) pour(l *Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	size := 0
	for i := range c.kept {
		size += len(c.kept[i].head) + len(c.kept[i].tail)
	}
	if size > 0 {
		l.resize(size)
	}
	for i := range c.kept {
		k := &c.kept[i]
		for _, part := range [][]byte{k.head, k.tail[k.oldest:], k.tail[:k.oldest]} {
			for len(part) > 0 {
				n := min(len(part), frame.MaxData)
				l.put(Source(i), part[:n])
				part = part[n:]
			}
		}
		k.head, k.tail = nil, nil
	}
}

// summary tells what was kept of source.
func (c *capture) summary(source Source) Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.kept[source]
	head := len(k.head)
	return Summary{Total: k.total, Omitted: k.omitted(), Head: &head}
}
