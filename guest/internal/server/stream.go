package server

import (
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
)

type attachRequest struct {
	ProcessID string `json:"process_id"`
	Offset    uint64 `json:"offset"`
	Observe   bool   `json:"observe"`
}

type attachedEvent struct {
	Event         string `json:"event"`
	ProcessID     string `json:"process_id"`
	Offset        uint64 `json:"offset"`
	PID           int    `json:"pid"`
	StartedUnixNS int64  `json:"started_unix_ns"`
}

func openAttach(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[attachRequest](raw)
	if err != nil {
		return nil, err
	}
	return func() { g.attach(ch, request) }, nil
}

// reader is a channel that is sent a process's output.
type reader struct {
	ch      *link.Channel
	process *process.Process
	// frames appends what is due from an offset on.
	frames func(dst []byte, channel uint32, at uint64, credit int64) (out []byte, next uint64, used int64, atEnd bool)
	// One of these ends it: conclude with the process's result, leave before it, which tells whether that ends the process.
	conclude func()
	leave    func() (killed bool)
}

// viewer makes a reader of a channel that is a viewer of the process.
func (g *Guest) viewer(ch *link.Channel, p *process.Process) *reader {
	return &reader{
		ch: ch, process: p, frames: p.Log().AppendFrames,
		conclude: func() { g.table.Conclude(p) }, leave: func() bool { return g.table.Leave(p) },
	}
}

// observer makes a reader of a channel that only looks on.
func observer(ch *link.Channel, p *process.Process, done func()) *reader {
	return &reader{
		ch: ch, process: p, frames: p.Log().ObserveFrames,
		conclude: done, leave: func() bool { done(); return false },
	}
}

func (g *Guest) attach(ch *link.Channel, request *attachRequest) {
	r, err := g.reader(ch, request)
	if err != nil {
		ch.Fail(err)
		return
	}
	p := r.process
	// What a capture keeps is not known before its end.
	if _, end := p.Log().Bounds(); request.Offset > end && !p.Capture {
		r.leave()
		ch.Fail(beyond(request.Offset, end))
		return
	}
	_ = ch.Event(attachedEvent{
		Event: "attached", ProcessID: p.ID, Offset: request.Offset, PID: p.PID(), StartedUnixNS: p.StartedUnixNS(),
	})
	r.stream(request.Offset)
}

func (g *Guest) reader(ch *link.Channel, request *attachRequest) (*reader, error) {
	if request.Observe {
		p, done, err := g.table.Observe(request.ProcessID)
		if err != nil {
			return nil, err
		}
		return observer(ch, p, done), nil
	}
	p, err := g.table.View(request.ProcessID)
	if err != nil {
		return nil, err
	}
	return g.viewer(ch, p), nil
}

func beyond(offset, end uint64) error {
	return fault.New(fault.OffsetOutOfRange, "offset %d is beyond the output's end at %d", offset, end)
}

// stream sends the output from an offset on, and the result.
func (r *reader) stream(at uint64) {
	ch, p, log := r.ch, r.process, r.process.Log()
	log.Watch(ch.Wake())
	defer log.Unwatch(ch.Wake())
	for {
		finished := p.HasFinished()
		before, atEnd := at, false
		err := ch.Deliver(func(queue []byte, credit int64) (out []byte, cost int64, more bool) {
			out, at, cost, atEnd = r.frames(queue, ch.ID(), at, credit)
			return out, cost, finished && atEnd
		})
		if err != nil {
			r.part()
			return
		}
		if finished && atEnd {
			r.conclude()
			ch.Result(p.Result())
			return
		}
		if _, end := log.Bounds(); finished && at > end {
			r.leave()
			ch.Fail(beyond(at, end))
			return
		}
		if at != before {
			continue
		}
		select {
		case <-ch.Wake():
		case <-ch.Closed():
		}
	}
}

// part ends a channel that nobody listens to any more. If that ends the process too, its result is still due.
func (r *reader) part() {
	if r.leave() {
		<-r.process.Finished()
		r.ch.Result(r.process.Result())
		return
	}
	r.ch.Fail(link.ErrClosed)
}
