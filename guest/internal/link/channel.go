package link

import (
	"errors"
	"sync"
	"sync/atomic"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
)

// Window is how many bytes of data either side may send on a new channel.
const Window = 256 << 10

// maxCredit keeps what a peer grants within an int64.
const maxCredit = 1 << 62

// ErrClosed tells that the service has lost interest in a channel, or the link has ended.
var ErrClosed error = fault.New(fault.Cancelled, "the service closed the channel")

// Channel is one operation's share of a link. Exactly one of Result and Fail ends it.
type Channel struct {
	link *Link
	id   uint32
	// wake gets a value whenever the channel may go on: credit has come, or it was closed.
	wake   chan struct{}
	closed chan struct{}
	over   chan struct{}
	once   sync.Once
	credit atomic.Int64
	// preface is what goes before the next frames of the operation, which alone uses it.
	preface []byte

	mu sync.Mutex
	// ended: nothing may be sent any more.
	ended bool
	in    inbox
}

func newChannel(l *Link, id uint32) *Channel {
	ch := &Channel{
		link: l, id: id,
		wake: make(chan struct{}, 1), closed: make(chan struct{}), over: make(chan struct{}),
	}
	ch.credit.Store(Window)
	ch.in.arrived = make(chan struct{}, 1)
	ch.in.window = Window
	return ch
}

// Go runs a part of the operation on a goroutine of the link.
func (ch *Channel) Go(part func()) {
	ch.link.tasks.Go(func() {
		defer ch.link.guard()
		part()
	})
}

// ID is the channel's number.
func (ch *Channel) ID() uint32 { return ch.id }

// Version is the protocol version that the service has chosen for the link.
func (ch *Channel) Version() int { return ch.link.version }

// Wake is for whoever has nothing to send, or no credit, to wait at.
func (ch *Channel) Wake() chan struct{} { return ch.wake }

// Closed is closed when the service has lost interest or the link has ended.
func (ch *Channel) Closed() <-chan struct{} { return ch.closed }

// IsClosed reports whether Closed is.
func (ch *Channel) IsClosed() bool {
	select {
	case <-ch.closed:
		return true
	default:
		return false
	}
}

func (ch *Channel) close() { ch.once.Do(func() { close(ch.closed) }) }

func (ch *Channel) addCredit(n uint32) {
	for {
		old := ch.credit.Load()
		if ch.credit.CompareAndSwap(old, min(old+int64(n), maxCredit)) {
			break
		}
	}
	notify(ch.wake)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Deliver lets fill append frames of this channel to the link's queue. Fill is told the credit, which may be none,
// and returns how much of it the frames cost, and whether the operation sends more at once.
func (ch *Channel) Deliver(fill func(queue []byte, credit int64) (out []byte, cost int64, more bool)) error {
	if ch.IsClosed() {
		return ErrClosed
	}
	return ch.link.out.append(func(queue []byte) ([]byte, bool) {
		ready := append(queue, ch.preface...)
		out, cost, more := fill(ready, ch.credit.Load())
		if len(out) == len(ready) {
			return queue, more
		}
		ch.preface = nil
		ch.credit.Add(-cost)
		return out, more
	})
}

// AwaitCredit waits until something may be sent.
func (ch *Channel) AwaitCredit() error {
	for ch.credit.Load() <= 0 {
		select {
		case <-ch.wake:
		case <-ch.closed:
			return ErrClosed
		}
	}
	return nil
}

// SendData sends one DATA frame of at most frame.MaxData bytes. There must be credit.
func (ch *Channel) SendData(b []byte) error {
	return ch.Deliver(func(queue []byte, _ int64) ([]byte, int64, bool) {
		return frame.Append(queue, frame.Data, ch.id, b), int64(len(b)), false
	})
}

// Event sends an EVENT.
func (ch *Channel) Event(v any) error {
	event, err := frame.AppendJSON(nil, frame.Event, ch.id, v)
	if err != nil {
		return err
	}
	return ch.link.out.append(func(queue []byte) ([]byte, bool) { return append(queue, event...), false })
}

// Preface sends an EVENT together with what the operation sends next.
func (ch *Channel) Preface(v any) error {
	event, err := frame.AppendJSON(ch.preface, frame.Event, ch.id, v)
	if err == nil {
		ch.preface = event
	}
	return err
}

// Result ends the channel with a RESULT.
func (ch *Channel) Result(v any) {
	out, err := frame.AppendJSON(nil, frame.Result, ch.id, v)
	if err != nil {
		ch.Fail(fault.New(fault.FileSystem, "the result cannot be sent: %v", err))
		return
	}
	ch.finish(out)
}

// maxMessage bounds an error's text, which may quote what the service sent.
const maxMessage = 4 << 10

// Fail ends the channel with an ERROR.
func (ch *Channel) Fail(err error) {
	e := *fault.From(err, fault.FileSystem)
	if len(e.Message) > maxMessage {
		e.Message = e.Message[:maxMessage] + "…"
	}
	out, err := frame.AppendJSON(nil, frame.Error, ch.id, &e)
	if err != nil {
		panic(err) // two strings always encode
	}
	ch.finish(out)
}

// finish frees the channel's number before the frame can reach the service, which may use it anew.
func (ch *Channel) finish(out []byte) {
	ch.mu.Lock()
	if ch.ended {
		ch.mu.Unlock()
		panic("a channel was ended twice")
	}
	ch.ended = true
	close(ch.over)
	ch.mu.Unlock()
	ch.link.remove(ch)
	_ = ch.link.out.append(func(queue []byte) ([]byte, bool) {
		return append(append(queue, ch.preface...), out...), false
	})
}

var errWindow = errors.New("DATA beyond the credit")
