package server

import (
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
)

type attachRequest struct {
	ProcessID string `json:"process_id"`
	Offset    uint64 `json:"offset"`
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

func (g *Guest) attach(ch *link.Channel, request *attachRequest) {
	p, err := g.table.View(request.ProcessID)
	if err != nil {
		ch.Fail(err)
		return
	}
	// What a capture keeps is not known before its end.
	if _, end := p.Log().Bounds(); request.Offset > end && !p.Capture {
		g.table.Leave(p)
		ch.Fail(beyond(request.Offset, end))
		return
	}
	_ = ch.Event(attachedEvent{
		Event: "attached", ProcessID: p.ID, Offset: request.Offset, PID: p.PID(), StartedUnixNS: p.StartedUnixNS(),
	})
	g.stream(ch, p, request.Offset)
}

func beyond(offset, end uint64) error {
	return fault.New(fault.OffsetOutOfRange, "offset %d is beyond the output's end at %d", offset, end)
}

// stream sends a process's output from an offset on, and its result. The channel is a viewer of the process.
func (g *Guest) stream(ch *link.Channel, p *process.Process, at uint64) {
	log := p.Log()
	log.Watch(ch.Wake())
	defer log.Unwatch(ch.Wake())
	for {
		finished := p.HasFinished()
		before, atEnd := at, false
		err := ch.Deliver(func(queue []byte, credit int64) (out []byte, cost int64) {
			out, at, cost, atEnd = log.AppendFrames(queue, ch.ID(), at, credit)
			return out, cost
		})
		if err != nil {
			g.part(ch, p)
			return
		}
		if finished && atEnd {
			g.table.Conclude(p)
			ch.Result(p.Result())
			return
		}
		if _, end := log.Bounds(); finished && at > end {
			g.table.Leave(p)
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
func (g *Guest) part(ch *link.Channel, p *process.Process) {
	if g.table.Leave(p) {
		<-p.Finished()
		ch.Result(p.Result())
		return
	}
	ch.Fail(link.ErrClosed)
}
